//! What HTTP's answers, methods and headers come to.
#![cfg(feature = "http")]
#![cfg(test)]

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{DATE, RETRY_AFTER},
};
use proptest::{collection::vec, prelude::*};
use withstand::{
    Classify, Hedge, HedgeDelay, Idempotency, Pipeline, Retry, Timeout, Verdict, VerdictKind,
    http::{
        HttpClassifier, IDEMPOTENCY_KEY, IdempotencyKeys, LONGEST_RETRY_AFTER, call_options, classify_status,
        idempotency, remaining_millis, retry_after, retry_after_at,
    },
};

const SENT: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn headers(retry_after: &[&str], date: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in retry_after {
        headers.append(RETRY_AFTER, HeaderValue::try_from(*value).unwrap());
    }
    if let Some(date) = date {
        headers.insert(DATE, HeaderValue::try_from(date).unwrap());
    }
    headers
}

fn verdict(code: u16, headers: &HeaderMap) -> Verdict {
    classify_status(StatusCode::from_u16(code).unwrap(), headers).verdict()
}

#[test]
fn every_status_has_the_verdict_of_the_table() {
    let hint = headers(&["7"], None);
    for code in 100..=999 {
        let expected = match code {
            408 | 425 | 500 | 502 | 503 | 504 => Verdict::transient().retry_after(secs(7)),
            429 => Verdict::throttled().retry_after(secs(7)),
            100..=499 => Verdict::success(),
            _ => Verdict::failure(),
        };
        assert_eq!(verdict(code, &hint), expected, "{code}");
        assert_eq!(verdict(code, &HeaderMap::new()), expected.retry_after(None), "{code}");
    }
}

#[test]
fn labels_are_those_of_the_status_and_few() {
    let label = |code| classify_status(StatusCode::from_u16(code).unwrap(), &HeaderMap::new()).label();
    let cases = [(200, "http_200"), (404, "http_404"), (503, "http_503"), (299, "http_2xx"), (419, "http_4xx")];
    for (code, expected) in cases.into_iter().chain([(100, "http_100"), (599, "http_5xx"), (777, "http_other")]) {
        assert_eq!(label(code), expected);
    }
    let all: HashSet<_> = (100..=999).map(label).collect();
    assert!(all.len() < 80, "{} labels", all.len());
    // What has a name in the `http` crate is registered.
    for code in (100..=599).filter(|code| StatusCode::from_u16(*code).unwrap().canonical_reason().is_some()) {
        assert_eq!(label(code), format!("http_{code}"));
    }
}

#[test]
fn retry_after_is_read_in_both_forms_and_nothing_else_is() {
    let day = Some(LONGEST_RETRY_AFTER);
    let cases: [(&[&str], Option<Duration>); 22] = [
        (&["0"], Some(secs(0))),
        (&["120"], Some(secs(120))),
        (&["  3 "], Some(secs(3))),
        (&["86400"], day),
        (&["86401"], day),
        (&["99999999999999999999999999"], day),
        (&["-5"], None),
        (&["+5"], None),
        (&["1.5"], None),
        (&["5s"], None),
        (&[""], None),
        (&["soon"], None),
        (&["Wed, 21 Oct 2015 07:28:30 GMT"], Some(secs(30))),
        (&["Wednesday, 21-Oct-15 07:28:30 GMT"], Some(secs(30))),
        (&["Wed Oct 21 07:28:30 2015"], Some(secs(30))),
        (&["Wed, 21 Oct 2015 07:27:00 GMT"], Some(secs(0))),
        (&["Fri, 31 Dec 9999 23:59:59 GMT"], day),
        // A day of the week that is not the date's, a day that is none, a zone that HTTP has not.
        (&["Mon, 21 Oct 2015 07:28:30 GMT"], None),
        (&["Sat, 31 Feb 2015 07:28:30 GMT"], None),
        (&["Wed, 21 Oct 2015 07:28:30 CET"], None),
        // Of several, the longest that can be read.
        (&["2", "Wed, 21 Oct 2015 07:28:10 GMT", "soon"], Some(secs(10))),
        (&[], None),
    ];
    for (values, expected) in cases {
        assert_eq!(retry_after(&headers(values, Some(SENT))), expected, "{values:?}");
    }
}

#[test]
fn a_date_is_measured_against_the_date_of_the_response_and_else_against_the_wall_clock() {
    let asked = &["Wed, 21 Oct 2015 07:28:30 GMT"];
    // Twenty seconds later than the server believes it is: of no account, since it says what it believes.
    let now = SystemTime::UNIX_EPOCH + secs(1_445_412_480 + 20);
    assert_eq!(retry_after_at(&headers(asked, Some(SENT)), now), Some(secs(30)));
    assert_eq!(retry_after_at(&headers(asked, None), now), Some(secs(10)));
    assert_eq!(retry_after_at(&headers(asked, Some("yesterday")), now), Some(secs(10)));
    assert_eq!(retry_after_at(&headers(asked, None), now + secs(1000)), Some(secs(0)));
    assert_eq!(retry_after_at(&headers(&["5"], None), now), Some(secs(5)));
    // The real clock is years further than 2015, and not yet in 9999.
    assert_eq!(retry_after(&headers(asked, None)), Some(secs(0)));
    assert_eq!(retry_after(&headers(&["Fri, 31 Dec 9999 23:59:59 GMT"], None)), Some(LONGEST_RETRY_AFTER));
}

#[test]
fn methods_that_are_not_idempotent_are_unsafe_unless_they_carry_a_key() {
    let with_key = |value| HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_static(value))]);
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        assert_eq!(idempotency(&method.parse().unwrap(), &HeaderMap::new()), Idempotency::Safe, "{method}");
    }
    for method in ["POST", "PATCH", "CONNECT", "PURGE", "get"] {
        let method: Method = method.parse().unwrap();
        assert_eq!(idempotency(&method, &HeaderMap::new()), Idempotency::Unsafe, "{method}");
        assert_eq!(idempotency(&method, &with_key("a")), Idempotency::Safe, "{method}");
        assert_eq!(idempotency(&method, &with_key(" \t")), Idempotency::Unsafe, "{method}");
    }
}

#[test]
fn keys_are_uuids_and_never_the_same() {
    let keys = IdempotencyKeys::new();
    let seen: HashSet<_> = (0..10_000).map(|_| keys.key()).collect();
    assert_eq!(seen.len(), 10_000);
    for key in &seen {
        let parts: Vec<_> = key.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{key}");
        assert!(parts.concat().bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{key}");
        assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{key}");
    }
    // All that is random takes all values: no bit is the same in all keys.
    let bits = |key: &String| u128::from_str_radix(&key.replace('-', ""), 16).unwrap();
    let (ones, zeros) = seen.iter().map(bits).fold((0, 0), |(ones, zeros), key| (ones | key, zeros | !key));
    assert_eq!((ones & zeros).count_ones(), 122);

    let others = IdempotencyKeys::new();
    let other: HashSet<_> = (0..1000).map(|_| others.key()).collect();
    assert!(other.is_disjoint(&seen));
    assert_eq!(IdempotencyKeys::seeded(1).key(), IdempotencyKeys::seeded(1).key());
    assert_ne!(IdempotencyKeys::seeded(1).key(), IdempotencyKeys::seeded(2).key());
}

#[test]
fn a_request_keeps_the_key_that_it_has() {
    let keys = IdempotencyKeys::seeded(1);
    let mut headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_static("mine"))]);
    keys.ensure(&mut headers);
    assert_eq!(headers[IDEMPOTENCY_KEY], "mine");
    headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static(" "));
    keys.ensure(&mut headers);
    assert_eq!(headers.get_all(IDEMPOTENCY_KEY).iter().count(), 1);
    assert_eq!(headers[IDEMPOTENCY_KEY].len(), 36);
}

/// An answer for each request, by its number; counts them, and keeps the key of each.
#[derive(Default)]
struct Server {
    requests: AtomicU32,
    keys: Mutex<Vec<Option<HeaderValue>>>,
}

impl Server {
    fn receive(&self, request: &Request<()>) -> u32 {
        self.keys.lock().unwrap().push(request.headers().get(IDEMPOTENCY_KEY).cloned());
        self.requests.fetch_add(1, Relaxed) + 1
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what a client gives")]
fn answer(code: u16, retry_after: &str) -> Result<Response<()>, &'static str> {
    Ok(Response::builder().status(code).header(RETRY_AFTER, retry_after).body(()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_as_long_as_the_answer_asks() {
    let retry = Retry::builder().max_attempts(2).seed(1);
    let pipeline = Pipeline::builder("http").retry(retry).classifier(HttpClassifier::new()).build().unwrap();
    let (server, began) = (Server::default(), tokio::time::Instant::now());
    let request = Request::get("/").body(()).unwrap();
    let response = pipeline
        .call(|| async {
            match server.receive(&request) {
                1 => answer(503, "5"),
                _ => answer(200, ""),
            }
        })
        .await;
    assert_eq!(response.unwrap().status(), 200);
    // The hint, and up to a tenth of it on top, so that clients do not come back all at once.
    assert!((secs(5)..=secs(6)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_post_is_repeated_only_with_a_key_which_is_that_of_all_its_attempts_and_hedges() {
    let hedge = Hedge::builder().delay(HedgeDelay::fixed(Duration::from_millis(100)));
    let pipeline = Pipeline::builder("http").retry(Retry::builder()).hedge(hedge).classifier(HttpClassifier::new());
    let pipeline = pipeline.build().unwrap();
    for with_key in [false, true] {
        let mut request = Request::post("/").body(()).unwrap();
        if with_key {
            IdempotencyKeys::new().ensure(request.headers_mut());
        }
        let server = Server::default();
        let options = call_options(request.method(), request.headers());
        let (to, server) = (&request, &server);
        let response = pipeline
            .call_with(options, |_| async move {
                if server.receive(to) == 1 {
                    // So slow that a hedge is sent, if one may be.
                    tokio::time::sleep(secs(1)).await;
                }
                answer(503, "")
            })
            .await;
        assert_eq!(response.unwrap().status(), 503);
        let keys = server.keys.lock().unwrap();
        if with_key {
            assert!(keys.len() > 2, "{keys:?}");
            assert!(keys.iter().all(|key| key.is_some() && key == &keys[0]), "{keys:?}");
        } else {
            assert_eq!(*keys, [None]);
        }
    }
}

#[test]
fn errors_are_transient_unless_one_says_otherwise() {
    let error: Result<&Response<()>, _> = Err(&"refused");
    assert_eq!(HttpClassifier::new().classify(error).verdict(), Verdict::transient());
    let told = HttpClassifier::new().errors(|_: &&str| Verdict::unreached().label("connect"));
    assert_eq!(told.classify(error), Verdict::unreached().label("connect"));
    let response: Response<()> = Response::new(());
    assert_eq!(Classify::<_, &str>::classify(&told, Ok(&response)).verdict(), Verdict::success());
}

#[tokio::test(start_paused = true)]
async fn the_header_says_the_time_that_is_left_and_none_where_nothing_limits() {
    let timeout = Timeout::new(Duration::from_micros(1_999_900)).unwrap();
    let left = timeout.call_with(call_options(&Method::GET, &HeaderMap::new()), |attempt| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok::<_, &str>(remaining_millis(&attempt))
    });
    assert_eq!(left.await, Ok(Some(HeaderValue::from(1499))));
    let retry = Retry::builder().build().unwrap();
    let left = retry.call_with(call_options(&Method::GET, &HeaderMap::new()), |attempt| async move {
        Ok::<_, &str>(remaining_millis(&attempt))
    });
    assert_eq!(left.await, Ok(None));
}

/// Values that servers send, and what goes wrong with them: bytes of any kind, dates with a byte changed, numbers.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let damaged = (0..SENT.len(), any::<u8>()).prop_map(|(at, byte)| {
        let mut value = SENT.as_bytes().to_vec();
        value[at] = byte;
        value
    });
    prop_oneof![
        vec(any::<u8>(), 0..40),
        "[-+]?[0-9]{0,25}".prop_map(String::into_bytes),
        "[A-Z][a-z]{2}, [0-9]{2} (Jan|Feb|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT".prop_map(String::into_bytes),
        "[A-Z][a-z]{5,8}, [0-9]{2}-(Jan|Feb|Dec)-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT".prop_map(String::into_bytes),
        damaged,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_status_and_no_header_panics_and_hints_keep_to_what_they_mean(
        code in 100_u16..1000,
        values in vec(value(), 0..3),
        dates in vec(value(), 0..2),
        now in 0_u64..=u64::MAX / 4,
    ) {
        let mut headers = HeaderMap::new();
        for (name, values) in [(RETRY_AFTER, &values), (DATE, &dates)] {
            for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
                headers.append(&name, value);
            }
        }
        let given = classify_status(StatusCode::from_u16(code).unwrap(), &headers).verdict();
        prop_assert!(given.hint().is_none_or(|hint| hint <= LONGEST_RETRY_AFTER));
        let may_have = matches!(given.kind(), VerdictKind::Transient | VerdictKind::Throttled);
        prop_assert!(may_have || given.hint().is_none());
        // However far off the clock is.
        if let Some(now) = SystemTime::UNIX_EPOCH.checked_add(secs(now)) {
            prop_assert!(retry_after_at(&headers, now).is_none_or(|hint| hint <= LONGEST_RETRY_AFTER));
        }
    }

    #[test]
    fn whole_seconds_are_taken_by_their_number(seconds in 0_u64..=LONGEST_RETRY_AFTER.as_secs()) {
        prop_assert_eq!(retry_after(&headers(&[&seconds.to_string()], None)), Some(secs(seconds)));
    }
}
