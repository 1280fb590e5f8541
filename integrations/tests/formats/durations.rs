//! Durations as people write them.

use std::time::Duration;

use withstand::{LayerConfig, PipelineConfig};

use crate::FORMATS;

/// The limit of a timeout that is written so, in each format and both ways to write it.
fn read(text: &str) -> Vec<Result<Duration, String>> {
    let mut all = Vec::new();
    for format in FORMATS {
        for layer in [format!("{{\"timeout\": \"{text}\"}}"), format!("{{\"timeout\": {{\"limit\": \"{text}\"}}}}")] {
            let whole = match format {
                crate::Format::Toml => format!("name = 'a'\nlayers = [{}]", layer.replace(':', "=")),
                _ => format!("{{\"name\": \"a\", \"layers\": [{layer}]}}"),
            };
            all.push(format.read::<PipelineConfig>(&whole).map(|config| match &config.layers[..] {
                [LayerConfig::Timeout(timeout)] => timeout.limit.unwrap(),
                other => panic!("{other:?}"),
            }));
        }
    }
    all
}

#[test]
fn are_accepted_with_their_units() {
    let ms = Duration::from_millis;
    for (text, is) in [
        ("250ms", ms(250)),
        ("2s", ms(2_000)),
        ("1m 30s", ms(90_000)),
        ("1m30s", ms(90_000)),
        ("2min", ms(120_000)),
        ("1h", ms(3_600_000)),
        ("1day", ms(86_400_000)),
        ("15us", Duration::from_micros(15)),
        ("7ns", Duration::from_nanos(7)),
        ("1s 500ms", ms(1_500)),
        ("0s", ms(0)),
    ] {
        assert_eq!(read(text), vec![Ok(is); 6], "{text:?}");
    }
}

#[test]
fn are_refused_without_and_the_error_says_how_to_write_them() {
    for text in
        ["", " ", "250", "ms", "-1s", "4 parsecs", "1s nonsense", "soon", "9999999999999999999999s", "NaN", "1,5s"]
    {
        for error in read(text).into_iter().map(Result::unwrap_err) {
            assert!(
                error.contains("expected a duration with its unit, such as \"250ms\", \"2s\" or \"1m 30s\""),
                "{text:?}: {error}"
            );
            assert!(error.contains("layers[0].timeout"), "{text:?}: {error}");
        }
    }
}
