//! What gRPC's statuses come to, and what a server is told about an attempt.
#![cfg(feature = "tonic")]
#![cfg(test)]

use std::{
    error::Error as StdError,
    fmt, io,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, HeaderValue};
use proptest::{collection::vec, prelude::*};
use tokio::time::{Instant, sleep};
use tonic::{
    Code, ConnectError, Request, Status, TimeoutExpired,
    metadata::{MetadataMap, MetadataValue},
};
use withstand::{
    Backoff, CallOptions, CircuitBreaker, CircuitState, Classify, Error, Hedge, HedgeDelay, Idempotency, Jitter,
    Pipeline, Retry, Timeout, Verdict,
    tonic::{ChannelClassifier, TonicClassifier, classify_status, request, with_pushback},
};

const PUSHBACK: &str = "grpc-retry-pushback-ms";
const PREVIOUS: &str = "grpc-previous-rpc-attempts";
const TIMEOUT: &str = "grpc-timeout";

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// As one comes from a server.
fn said(code: Code, headers: &[(&'static str, &str)]) -> Status {
    let mut map = HeaderMap::new();
    map.insert("content-type", HeaderValue::from_static("application/grpc"));
    for (name, value) in headers {
        map.append(*name, HeaderValue::try_from(*value).unwrap());
    }
    Status::with_metadata(code, "said the server", MetadataMap::from_headers(map))
}

/// As tonic's channel makes one of an error.
fn behind(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Status {
    Status::from_error(Box::new(Wrapped(error.into())))
}

#[derive(Debug)]
struct Wrapped(Box<dyn StdError + Send + Sync>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("transport error")
    }
}

impl StdError for Wrapped {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

fn codes() -> impl Iterator<Item = Code> {
    (0..=16).map(Code::from_i32)
}

fn verdict(status: &Status) -> Verdict {
    classify_status(status).verdict()
}

/// As the issue has it, and no code of its own.
fn expected(code: Code) -> (Verdict, &'static str) {
    match i32::from(code) {
        0 => (Verdict::success(), "grpc_ok"),
        1 => (Verdict::failure(), "grpc_cancelled"),
        2 => (Verdict::failure(), "grpc_unknown"),
        3 => (Verdict::success(), "grpc_invalid_argument"),
        4 => (Verdict::transient(), "grpc_deadline_exceeded"),
        5 => (Verdict::success(), "grpc_not_found"),
        6 => (Verdict::success(), "grpc_already_exists"),
        7 => (Verdict::success(), "grpc_permission_denied"),
        8 => (Verdict::throttled(), "grpc_resource_exhausted"),
        9 => (Verdict::success(), "grpc_failed_precondition"),
        10 => (Verdict::failure(), "grpc_aborted"),
        11 => (Verdict::success(), "grpc_out_of_range"),
        12 => (Verdict::failure(), "grpc_unimplemented"),
        13 => (Verdict::failure(), "grpc_internal"),
        14 => (Verdict::transient(), "grpc_unavailable"),
        15 => (Verdict::failure(), "grpc_data_loss"),
        16 => (Verdict::success(), "grpc_unauthenticated"),
        _ => unreachable!("gRPC has 17 codes"),
    }
}

#[test]
fn every_code_has_the_verdict_of_the_table() {
    for code in codes() {
        let (verdict, label) = expected(code);
        let status = said(code, &[]);
        assert_eq!(classify_status(&status), verdict.label(label), "{code:?}");
        assert_eq!(TonicClassifier::new().classify(Err::<&(), _>(&status)), verdict.label(label));

        let number = i32::from(code).to_string();
        let response = http::Response::builder().header("grpc-status", number).body(()).unwrap();
        assert_eq!(ChannelClassifier::new().classify(Ok::<_, &io::Error>(&response)), verdict.label(label));

        // Made here: the same, but for what was cancelled here.
        let verdict = if code == Code::Cancelled { Verdict::ignored() } else { verdict };
        assert_eq!(classify_status(&Status::new(code, "made here")), verdict.label(label), "{code:?}");
    }
    assert_eq!(TonicClassifier::new().classify(Ok(&())), Verdict::success().label("grpc_ok"));
}

#[test]
fn pushback_is_a_hint_where_a_call_may_be_repeated_and_ends_it_where_it_says_no() {
    for code in codes() {
        let (verdict, label) = expected(code);
        let repeats = matches!(code, Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded);
        for (value, hint) in [("0", ms(0)), ("250", ms(250)), ("007", ms(7)), ("2147483647", ms(2_147_483_647))] {
            let classification = classify_status(&said(code, &[(PUSHBACK, value)]));
            assert_eq!(classification, verdict.retry_after(hint).label(label), "{code:?}, {value}");
            assert_eq!(classification.verdict().hint(), repeats.then_some(hint));
        }
        for value in ["-1", "-0", "+5", "", "soon", "1.5", "5s", "2147483648", "99999999999999999999", "0x10", "1 2"] {
            let classification = classify_status(&said(code, &[(PUSHBACK, value)]));
            let verdict = if repeats { Verdict::failure() } else { verdict };
            assert_eq!(classification, verdict.label(label), "{code:?}, {value:?}");
        }
    }
    // Two are as good as none that can be read.
    assert_eq!(verdict(&said(Code::Unavailable, &[(PUSHBACK, "5"), (PUSHBACK, "5")])), Verdict::failure());
    // Not even a refused connection is tried again if somebody says so. Nothing else has a hint of it.
    let mut no = MetadataMap::new();
    no.insert(PUSHBACK, MetadataValue::from(-1));
    assert_eq!(with_pushback(Verdict::unreached(), &no), Verdict::failure());
    for verdict in [Verdict::success(), Verdict::failure(), Verdict::ignored(), Verdict::rejected()] {
        assert_eq!(with_pushback(verdict, &no), verdict);
    }
}

proptest! {
    #[test]
    fn no_bytes_of_a_server_panic_and_pushback_keeps_to_what_it_means(
        code in 0..=16,
        status in vec(any::<u8>().prop_filter("bytes of a header", |byte| HeaderValue::from_bytes(&[*byte]).is_ok()), 0..4),
        values in vec(prop_oneof![
            "-?[0-9]{1,12}",
            vec(any::<u8>().prop_filter("bytes of a header", |byte| HeaderValue::from_bytes(&[*byte]).is_ok()), 0..12)
                .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        ], 0..3),
    ) {
        let mut headers = HeaderMap::new();
        for value in &values {
            headers.append(PUSHBACK, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        // This makes tonic's own reading of the head panic.
        headers.insert("grpc-status-details-bin", HeaderValue::from_static("not base64!"));
        let mut response = http::Response::new(());
        *response.headers_mut() = headers.clone();
        response.headers_mut().insert("grpc-status", HeaderValue::from_bytes(&status).unwrap());
        let classify = |response: &http::Response<()>| ChannelClassifier::new().classify(Ok::<_, &io::Error>(response)).verdict();
        let is_of_an_answer = !matches!(classify(&response), Verdict::Ignored | Verdict::Unreached { .. });
        prop_assert!(is_of_an_answer);

        response.headers_mut().insert("grpc-status", HeaderValue::from(code));
        let metadata = MetadataMap::from_headers(headers);
        let of_method = classify_status(&Status::with_metadata(Code::from_i32(code), "", metadata)).verdict();
        prop_assert_eq!(classify(&response), of_method);

        let (plain, _) = expected(Code::from_i32(code));
        let said = match values.as_slice() {
            [] => Some(plain),
            [one] if one.bytes().all(|digit| digit.is_ascii_digit()) => {
                one.parse::<i32>().ok().map(|millis| plain.retry_after(ms(u64::try_from(millis).unwrap())))
            }
            _ => None,
        };
        let repeats = plain.retry_after(ms(1)).hint().is_some();
        prop_assert_eq!(of_method, said.unwrap_or(if repeats { Verdict::failure() } else { plain }));
    }

    #[test]
    fn the_time_that_is_told_is_never_longer_than_what_is_left_nor_than_what_the_caller_gave(
        nanos in prop_oneof![1..2_000_000_u64, 1..200_000_000_000_000_u64, 1..900_000_000_000_000_000_u64],
        given in prop_oneof![Just(None), "[0-9]{1,8}[HMSmun]".prop_map(Some)],
    ) {
        let left = Duration::from_nanos(nanos);
        let sent = paused(async {
            let given = &given;
            Timeout::new(left).unwrap().call_with(CallOptions::new(), |attempt| async move {
                let mut asked = Request::new(());
                if let Some(given) = given {
                    asked.metadata_mut().insert(TIMEOUT, given.parse().unwrap());
                }
                Ok::<_, Status>(request::<()>(asked, attempt))
            }).await.unwrap()
        });
        let value = sent.metadata().get(TIMEOUT).unwrap().to_str().unwrap();
        prop_assert!((2..=9).contains(&value.len()) && sent.metadata().get_all(TIMEOUT).iter().count() == 1);
        let told = by_the_specification(value);
        prop_assert!(told <= left, "{value} of {left:?}");
        match given.as_deref() {
            Some(given) if by_the_specification(given) <= left => prop_assert_eq!(value, given),
            // As near as eight digits can be.
            _ => {
                let unit = if told >= ms(99_999_999) { Duration::from_secs(1) } else { ms(1) };
                prop_assert!(left < told + unit || value == "99999999S", "{value} of {left:?}");
            }
        }
    }
}

fn by_the_specification(value: &str) -> Duration {
    let (digits, unit) = value.split_at(value.len() - 1);
    let number: u64 = digits.parse().unwrap();
    match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        other => unreachable!("{other} is no unit"),
    }
}

fn paused<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}

#[test]
fn what_is_behind_a_status_counts_instead_of_the_code_that_tonic_makes_of_it() {
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let cases = [
        (behind(ConnectError("no route".into())), Verdict::unreached().label("grpc_connect")),
        (behind(ConnectError(refused().into())), Verdict::unreached().label("grpc_connect")),
        (behind(refused()), Verdict::unreached().label("grpc_connect")),
        (behind(io::Error::other(ConnectError("no name".into()))), Verdict::unreached().label("grpc_connect")),
        // Which errors of I/O are those of the connection only hyper and h2 know.
        (behind(io::Error::from(io::ErrorKind::NotFound)), Verdict::failure().label("grpc_unknown")),
        (behind(TimeoutExpired(())), Verdict::transient().label("grpc_timeout")),
        (behind(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM)), Verdict::throttled().label("grpc_refused")),
        (behind(h2::Error::from(h2::Reason::INTERNAL_ERROR)), Verdict::failure().label("grpc_protocol")),
        // A server refuses streams, and nobody else.
        (behind(h2::Error::from(h2::Reason::REFUSED_STREAM)), Verdict::failure().label("grpc_protocol")),
        (behind("whatever"), Verdict::failure().label("grpc_unknown")),
    ];
    let mut wrapping = Status::unavailable("of another client");
    wrapping.set_source(Arc::new(io::Error::other(ConnectError("no name".into()))));
    let wrapping = (wrapping, Verdict::unreached().label("grpc_connect"));
    for (status, expected) in cases.into_iter().chain([wrapping]) {
        assert_eq!(classify_status(&status), expected, "{status:?}");
        // The same error from a channel; what is unknown has no code there.
        let error = Wrapped(Box::new(status));
        let of_channel = ChannelClassifier::new().classify(Err::<&http::Response<()>, _>(&error));
        assert_eq!(of_channel.verdict(), expected.verdict(), "{error:?}");
    }
}

#[test]
fn the_time_that_is_up_in_a_server_of_tonics_is_known_by_its_words() {
    let words = TimeoutExpired(()).to_string();
    let status = said(Code::Cancelled, &[]);
    let timed_out = Status::with_metadata(Code::Cancelled, words, status.metadata().clone());
    assert_eq!(classify_status(&timed_out), Verdict::transient().label("grpc_cancelled"));
    assert_eq!(classify_status(&status), Verdict::failure().label("grpc_cancelled"));
}

#[test]
fn what_an_interceptor_says_looks_like_the_words_of_the_server() {
    // So tonic makes a response of it, which the client then reads.
    let response = Status::cancelled("by an interceptor").into_http::<()>();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(verdict(&status), Verdict::failure());
}

#[test]
fn a_head_without_a_status_is_a_success_or_what_grpc_makes_of_its_http_status() {
    let classify = |status: u16| {
        let response = http::Response::builder().status(status).body(()).unwrap();
        ChannelClassifier::new().classify(Ok::<_, &io::Error>(&response))
    };
    let cases = [(200, Code::Ok), (400, Code::Internal), (401, Code::Unauthenticated), (403, Code::PermissionDenied)];
    let cases = cases.into_iter().chain([(404, Code::Unimplemented), (429, Code::Unavailable), (500, Code::Unknown)]);
    for (status, code) in cases.chain([502, 503, 504].map(|status| (status, Code::Unavailable))) {
        let (verdict, label) = expected(code);
        assert_eq!(classify(status), verdict.label(label), "{status}");
    }
    assert_eq!(classify(302), Verdict::failure().label("grpc_unknown"));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_tells_what_is_left_to_it_and_how_many_were_before() {
    let pipeline = Pipeline::builder("users")
        .timeout(ms(900))
        .retry(Retry::builder().max_attempts(3).backoff(Backoff::constant(ms(100)).jitter(Jitter::None)))
        .timeout(ms(450))
        .classifier(TonicClassifier::new())
        .build()
        .unwrap();
    let sent = Mutex::new(Vec::new());
    // Metadata that came with somebody else's request is not passed on.
    let mut asked = MetadataMap::new();
    asked.insert(PREVIOUS, MetadataValue::from(7));
    asked.insert("tenant", "acme".parse().unwrap());
    let status = pipeline
        .call_with(CallOptions::new(), |attempt| {
            let mut message = Request::new("hello");
            *message.metadata_mut() = asked.clone();
            let request = request::<&str>(message, attempt);
            assert_eq!(
                (request.get_ref(), request.metadata().get("tenant").unwrap().as_bytes()),
                (&"hello", &b"acme"[..])
            );
            let header = |name| request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
            sent.lock().unwrap().push((header(TIMEOUT), header(PREVIOUS)));
            async {
                sleep(ms(400)).await;
                Err::<(), _>(Status::unavailable("busy"))
            }
        })
        .await
        .unwrap_err();
    assert_eq!(status.operation().map(Status::code), Some(Code::Unavailable));
    // The first one has all of an attempt's time, the second what is left of the whole.
    let owned = |value: &str| Some(value.to_owned());
    assert_eq!(sent.into_inner().unwrap(), [(owned("450m"), None), (owned("400m"), owned("1"))]);
}

#[cfg(feature = "deadlines")]
#[tokio::test(start_paused = true)]
async fn a_call_in_a_handler_tells_what_is_left_of_the_handlers_time() {
    let pipeline = Pipeline::builder("users").timeout(ms(1000)).classifier(TonicClassifier::new()).build().unwrap();
    let handler = async {
        sleep(ms(100)).await;
        let sent =
            pipeline.call_with(CallOptions::new(), |attempt| async move { Ok::<_, Status>(request((), attempt)) });
        sent.await.unwrap().metadata().get(TIMEOUT).unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(withstand::Deadline::after(ms(400)).scope(handler).await, "300m");
}

#[tokio::test(start_paused = true)]
async fn hedges_count_among_the_attempts_before() {
    let pipeline = Pipeline::builder("users")
        .retry(Retry::builder().max_attempts(2).backoff(Backoff::constant(ms(1))))
        .hedge(Hedge::builder().delay(HedgeDelay::fixed(ms(10))).max_hedges(2))
        .classifier(TonicClassifier::new())
        .build()
        .unwrap();
    let sent = Mutex::new(Vec::new());
    let result = pipeline
        .call_with(CallOptions::new(), |attempt| {
            let request = request((), attempt);
            let previous = request.metadata().get(PREVIOUS).map(|value| value.to_str().unwrap().to_owned());
            sent.lock().unwrap().push((attempt.number(), attempt.hedge(), previous));
            async {
                sleep(ms(100)).await;
                Err::<(), _>(Status::unavailable("busy"))
            }
        })
        .await;
    assert!(result.is_err());
    let sent = sent.into_inner().unwrap();
    // Of the second attempt the first request is the third one.
    assert_eq!(sent.last().unwrap(), &(2, 0, Some("2".to_owned())), "{sent:?}");
    for (index, (_, _, previous)) in sent.iter().enumerate() {
        let expected = (index > 0).then(|| index.to_string());
        assert_eq!(*previous, expected, "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_deadline_keeps_the_time_that_the_caller_gave_and_gets_none() {
    let pipeline = Pipeline::builder("users").build().unwrap();
    for given in [None, Some("3S"), Some("never")] {
        let sent = pipeline
            .call_with(CallOptions::new(), |attempt| async move {
                let mut asked = Request::new(());
                if let Some(given) = given {
                    asked.metadata_mut().insert(TIMEOUT, given.parse().unwrap());
                }
                Ok::<_, Status>(request::<()>(asked, attempt))
            })
            .await
            .unwrap();
        assert_eq!(sent.metadata().get(TIMEOUT).map(|value| value.to_str().unwrap()), given);
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_of_the_callers_that_no_server_can_read_gives_way() {
    let pipeline = Pipeline::builder("users").timeout(ms(250)).build().unwrap();
    for given in ["5", "-1m", "1.5S", "m", "123456789m", "1x", "", "1m, 2m"] {
        let sent = pipeline
            .call_with(CallOptions::new(), |attempt| async move {
                let mut asked = Request::new(());
                asked.metadata_mut().insert(TIMEOUT, given.parse().unwrap());
                Ok::<_, Status>(request::<()>(asked, attempt))
            })
            .await
            .unwrap();
        assert_eq!(sent.metadata().get(TIMEOUT).unwrap(), "250m", "{given}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_when_no_time_is_left_and_what_is_prepared_too_late_says_zero() {
    let pipeline = Pipeline::builder("users").build().unwrap();
    let late = CallOptions::new().deadline(Instant::now());
    let error = pipeline.call_with(late, |_| async { unreachable!("it is called") as Result<(), Status> }).await;
    assert!(error.unwrap_err().is_timeout());

    let soon = CallOptions::new().deadline(Instant::now() + ms(10));
    let sent = pipeline
        .call_with(soon, |attempt| async move {
            tokio::time::advance(ms(20)).await;
            Ok::<_, Status>(request((), attempt))
        })
        .await
        .unwrap();
    assert_eq!(sent.metadata().get(TIMEOUT).unwrap(), "0m");
}

#[tokio::test(start_paused = true)]
async fn a_pushback_is_waited_for_and_a_negative_one_ends_the_call() {
    let pipeline = Pipeline::builder("users")
        .retry(Retry::builder().max_attempts(3).backoff(Backoff::constant(ms(1))))
        .classifier(TonicClassifier::new())
        .build()
        .unwrap();
    for code in [Code::Unavailable, Code::ResourceExhausted] {
        for (pushback, attempts) in [("300", 3), ("-1", 1), ("soon", 1)] {
            let (began, made) = (Instant::now(), Mutex::new(0));
            let result = pipeline
                .call(|| async {
                    *made.lock().unwrap() += 1;
                    Err::<(), _>(said(code, &[(PUSHBACK, pushback)]))
                })
                .await;
            assert_eq!(result.unwrap_err().operation().unwrap().code(), code);
            assert_eq!(made.into_inner().unwrap(), attempts, "{code:?}, {pushback}");
            // Each wait is up to a tenth longer.
            let waited = began.elapsed();
            let range = if attempts == 3 { ms(600)..=ms(662) } else { ms(0)..=ms(0) };
            assert!(range.contains(&waited), "{waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn deadline_exceeded_is_repeated_while_there_is_time_and_is_the_outcome_when_there_is_none() {
    let pipeline = Pipeline::builder("users")
        .timeout(ms(1000))
        .retry(Retry::builder().max_attempts(10).backoff(Backoff::constant(ms(30)).jitter(Jitter::None)))
        .classifier(TonicClassifier::new())
        .build()
        .unwrap();
    let (began, made) = (Instant::now(), Mutex::new(0));
    let outcome = pipeline
        .outcome(|| async {
            *made.lock().unwrap() += 1;
            sleep(ms(480)).await;
            Err::<(), _>(said(Code::DeadlineExceeded, &[]))
        })
        .await;
    // A third one would begin when the time is up. So nobody waits for that, and the status comes as it is.
    assert_eq!((began.elapsed(), made.into_inner().unwrap()), (ms(990), 2));
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::transient(), "grpc_deadline_exceeded"));
    assert_eq!(outcome.result.unwrap_err().operation().map(Status::code), Some(Code::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_repeated_only_where_it_never_began_or_was_turned_away() {
    let pipeline = Pipeline::builder("payments")
        .retry(Retry::builder().max_attempts(2).backoff(Backoff::constant(ms(1))))
        .classifier(TonicClassifier::new())
        .build()
        .unwrap();
    let once = CallOptions::new().idempotency(Idempotency::Unsafe);
    let attempts = async |status: Status| {
        let made = Mutex::new(0);
        let result = pipeline
            .call_with(once, |_| {
                *made.lock().unwrap() += 1;
                let status = status.clone();
                async { Err::<(), _>(status) }
            })
            .await;
        assert!(result.is_err());
        made.into_inner().unwrap()
    };
    assert_eq!(attempts(behind(ConnectError("refused".into()))).await, 2);
    assert_eq!(attempts(said(Code::ResourceExhausted, &[])).await, 2);
    assert_eq!(attempts(said(Code::Unavailable, &[])).await, 1);
    assert_eq!(attempts(said(Code::DeadlineExceeded, &[])).await, 1);
    assert_eq!(attempts(behind(TimeoutExpired(()))).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_for_failures_and_not_for_answers_nor_for_what_was_cancelled_here() {
    for (status, opens) in [
        (said(Code::Unavailable, &[]), true),
        (said(Code::Internal, &[]), true),
        (said(Code::Cancelled, &[]), true),
        (behind(TimeoutExpired(())), true),
        (said(Code::NotFound, &[]), false),
        (said(Code::ResourceExhausted, &[]), false),
        (Status::cancelled("shutting down"), false),
    ] {
        let breaker = Arc::new(CircuitBreaker::builder().min_calls(5).build().unwrap());
        let pipeline = Pipeline::builder("users")
            .circuit_breaker(breaker.clone())
            .classifier(TonicClassifier::new())
            .build()
            .unwrap();
        for _ in 0..10 {
            let status = status.clone();
            assert!(pipeline.guard(async { Err::<(), _>(status) }).await.is_err());
        }
        assert_eq!(matches!(breaker.state(), CircuitState::Open { .. }), opens, "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_is_told_is_the_status_as_it_is_a_timeout_or_unavailable() {
    let told = Status::from(Error::Operation(said(Code::NotFound, &[("tenant", "acme")])));
    assert_eq!((told.code(), told.metadata().get("tenant").unwrap().as_bytes()), (Code::NotFound, &b"acme"[..]));

    // tonic's channel calls the end of the time CANCELLED.
    let told = Status::from(Error::Operation(behind(TimeoutExpired(()))));
    assert_eq!(told.code(), Code::DeadlineExceeded);
    let told = Status::from(Error::Operation(Wrapped(Box::new(TimeoutExpired(())))));
    assert_eq!(told.code(), Code::DeadlineExceeded);
    // And so do its servers, whose CANCELLED is another thing otherwise.
    let cancelled = |message: &str| Status::from(Error::Operation(Status::cancelled(message))).code();
    assert_eq!((cancelled("Timeout expired"), cancelled("")), (Code::DeadlineExceeded, Code::Cancelled));

    let pipeline = Pipeline::builder("users").timeout(ms(10)).classifier(TonicClassifier::new()).build().unwrap();
    let timed_out = pipeline.call(std::future::pending::<Result<(), Status>>).await.unwrap_err();
    let told = Status::from(timed_out);
    assert_eq!((told.code(), verdict(&told)), (Code::DeadlineExceeded, Verdict::transient()));

    // Nothing was called.
    let late = CallOptions::new().deadline(Instant::now());
    let timed_out = pipeline.call_with(late, |_| async { Ok::<_, Status>(()) }).await.unwrap_err();
    let told = Status::from(timed_out);
    assert_eq!((told.code(), verdict(&told)), (Code::DeadlineExceeded, Verdict::rejected()));

    let breaker = CircuitBreaker::builder().build().unwrap();
    let _isolation = breaker.isolate();
    let pipeline = Pipeline::builder("users").circuit_breaker(breaker).build().unwrap();
    let rejected = pipeline.call(|| async { Ok::<_, Status>(()) }).await.unwrap_err();
    let told = Status::from(rejected);
    assert_eq!((told.code(), classify_status(&told)), (Code::Unavailable, Verdict::rejected().label("isolated")));
}
