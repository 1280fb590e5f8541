//! Times as headers have them.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use withstand::Deadline;

use crate::support::{ms, secs};

#[test]
fn a_time_is_read_in_milliseconds_or_as_grpc_writes_it() {
    let read = [
        ("0", Some(ms(0))),
        ("250", Some(ms(250))),
        (" 250 ", Some(ms(250))),
        ("100m", Some(ms(100))),
        ("2S", Some(secs(2))),
        ("2M", Some(secs(120))),
        ("1H", Some(secs(3_600))),
        ("7u", Some(Duration::from_micros(7))),
        ("7n", Some(Duration::from_nanos(7))),
        ("-1", Some(ms(0))),
        ("-3S", Some(ms(0))),
        ("99999999999999999999999999", Some(Duration::from_millis(u64::MAX))),
        ("99999999999999999999999999H", Some(Duration::from_secs(u64::MAX))),
    ];
    for (text, time) in read {
        assert_eq!(Deadline::parse_timeout(text), time, "{text:?}");
    }
    for text in [
        "", " ", "-", "m", "S", "-m", "--1", "+1", "1.5", "1e3", "2s", "5ms", "0x10", "NaN", "٣", "1é", "é", "1 S",
        "1\n2",
    ] {
        assert_eq!(Deadline::parse_timeout(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_reading_a_time_panic(text in "\\PC*") {
        let _time = Deadline::parse_timeout(&text);
    }

    #[test]
    fn what_is_written_is_read_as_no_more_and_hardly_less(millis in prop_oneof![0_u64..200_000, any::<u64>()]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let deadline = Deadline::after(ms(millis));
            let left = deadline.remaining();
            let grpc = Deadline::parse_timeout(&deadline.grpc_timeout()).unwrap();
            let plain = Deadline::parse_timeout(&deadline.remaining_millis().to_string()).unwrap();
            prop_assert!(deadline.grpc_timeout().len() <= 9);
            prop_assert!(plain <= left && left < plain + ms(1));
            prop_assert!(grpc <= left);
            // Eight digits of seconds are three years.
            prop_assert!(left < grpc + secs(1) || grpc == secs(99_999_999));
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_has_no_time_left() {
    let now = Instant::now();
    let passed = Deadline::at(now);
    tokio::time::advance(ms(5)).await;
    assert_eq!((passed.remaining(), passed.remaining_millis(), passed.grpc_timeout().as_str()), (ms(0), 0, "0m"));
    assert_eq!(passed.instant(), now);
    assert!(Deadline::after(Duration::MAX).remaining() > secs(365 * 24 * 3_600));
}
