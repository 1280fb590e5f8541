//! Input that means harm neither panics nor hangs.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use withstand::{Pipeline, PipelineConfig};

use crate::{FORMATS, Format, Service};

/// Reads it both ways, in time.
fn read(format: Format, text: String) -> Result<PipelineConfig, String> {
    let (done, result) = mpsc::channel();
    let reader = thread::spawn(move || {
        let _as_a_part = format.read::<Service>(&format.within(&text));
        done.send(format.read::<PipelineConfig>(&text)).unwrap();
    });
    let begin = Instant::now();
    let result = result.recv_timeout(Duration::from_secs(30));
    if result.is_ok() {
        reader.join().expect("no panic");
    }
    result.unwrap_or_else(|error| panic!("{format:?} {error} after {:?}", begin.elapsed()))
}

#[test]
fn deep_nesting() {
    for depth in [100, 10_000, 100_000] {
        for format in FORMATS {
            let start = if format == Format::Toml { "name = 'a'\nlayers = " } else { "{\"name\": \"a\", \"layers\": " };
            for (open, close) in [("[", "]"), ("{\"retry\": ", "}"), ("{retry = ", "}")] {
                for text in [open.repeat(depth), open.repeat(depth) + &close.repeat(depth)] {
                    assert!(read(format, format!("{start}{text}")).is_err());
                    assert!(read(format, text).is_err());
                }
            }
        }
    }
}

#[test]
fn aliases_that_multiply() {
    let mut text = "name: a\na0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        text += &format!("a{level}: &a{level} [{before}]\n");
    }
    assert!(read(Format::Yaml, text.clone() + "layers: *a11").is_err());
}

#[test]
fn long_texts() {
    let long = "x".repeat(1_000_000);
    for format in FORMATS {
        let text = match format {
            Format::Toml => format!("name = '{long}'\nlayers = [{{ timeout = '{long}' }}]"),
            _ => format!("{{\"name\": \"{long}\", \"layers\": [{{\"timeout\": \"{long}\"}}]}}"),
        };
        assert!(read(format, text).is_err());
    }
    let digits = "9".repeat(100_000);
    for format in FORMATS {
        let text = match format {
            Format::Toml => format!("name = 'a'\nlayers = [{{ timeout = '{digits}s' }}]"),
            _ => format!("{{\"name\": \"a\", \"layers\": [{{\"timeout\": \"{digits}s\"}}]}}"),
        };
        assert!(read(format, text).is_err());
    }
}

#[test]
fn numbers_that_are_too_large_are_refused_with_their_path() {
    for number in ["4294967296", "99999999999999999999999999", "1e400", "-9223372036854775808"] {
        for format in FORMATS {
            let text = match format {
                Format::Toml => format!("name = 'a'\nlayers = [{{ retry = {{ max_attempts = {number} }} }}]"),
                _ => format!("{{\"name\": \"a\", \"layers\": [{{\"retry\": {{\"max_attempts\": {number}}}}}]}}"),
            };
            let error = read(format, text).unwrap_err();
            // TOML has no such integers at all, and says so before anything else.
            assert!(error.contains("layers[0].retry.max_attempts") || format == Format::Toml, "{format:?}: {error}");
        }
    }
}

#[test]
fn what_is_no_number_is_read_and_refused_when_it_is_built() {
    let fields = ["circuit_breaker.failure_rate", "circuit_breaker.growth", "circuit_breaker.jitter"];
    let fields = fields.into_iter().chain(["hedge.delay.quantile", "retry.backoff.factor", "retry.budget.ratio"]);
    for field in fields {
        for (format, numbers) in
            [(Format::Toml, ["nan", "inf", "-inf", "-0.1"]), (Format::Yaml, [".nan", ".inf", "-.inf", "-0.1"])]
        {
            for number in numbers {
                let (mut toml, mut yaml) = (number.to_owned(), number.to_owned());
                for part in field.split('.').rev() {
                    toml = format!("{{ {part} = {toml} }}");
                    yaml = format!("{{ {part}: {yaml} }}");
                }
                let text = match format {
                    Format::Toml => format!("name = 'a'\nlayers = [{toml}]"),
                    _ => format!("name: a\nlayers: [{yaml}]"),
                };
                let error = Pipeline::from_config(read(format, text).unwrap()).build().unwrap_err();
                assert_eq!(error.field(), field.rsplit('.').next().unwrap(), "{field} = {number}: {error}");
            }
        }
    }
}
