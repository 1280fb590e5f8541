//! A classifier of one's own in nine lines: what the statuses of an HTTP API mean.
//!
//! ```text
//! cargo run --example custom_classifier
//! ```

use std::{
    error::Error,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use withstand::{Backoff, Classification, Classify, Pipeline, Retry, Verdict};

/// What the client gives for every answer: an HTTP 503 is an `Ok` to it.
struct Response {
    status: u16,
}

/// Connect errors only.
#[derive(Debug, thiserror::Error)]
#[error("connection refused")]
struct Refused;

/// Each answer in one word, which every policy reads.
struct Http;
impl Classify<Response, Refused> for Http {
    fn classify(&self, result: Result<&Response, &Refused>) -> Classification {
        match result.map(|response| response.status) {
            Ok(429) => Verdict::throttled().retry_after(Duration::from_millis(30)).label("http_429"),
            Ok(500..) => Verdict::transient().label("http_5xx"),
            Ok(_) => Verdict::success().into(),
            Err(Refused) => Verdict::unreached().label("refused"),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let backoff = Backoff::constant(Duration::from_millis(1));
    let users = Pipeline::builder("users-api").retry(Retry::builder().backoff(backoff)).classifier(Http).build()?;

    println!("answer     verdict     label      attempts");
    for (status, expected) in [(200, 1), (404, 1), (503, 3), (429, 3), (0, 3)] {
        let attempts = AtomicU32::new(0);
        let outcome = users
            .outcome(|| async {
                attempts.fetch_add(1, Relaxed);
                if status == 0 { Err(Refused) } else { Ok(Response { status }) }
            })
            .await;
        let answer = if status == 0 { "refused".to_owned() } else { format!("HTTP {status}") };
        let (verdict, label, attempts) = (outcome.verdict().kind().as_str(), outcome.label(), attempts.into_inner());
        println!("{answer:<10} {verdict:<11} {label:<10} {attempts}");
        assert_eq!(attempts, expected, "an answer that may be another the next time is asked for three times");
    }
    Ok(())
}
