//! Faults, injected one after the other into pipelines that call a real service, and what must be counted for them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use reqwest::StatusCode;
use tokio::time::{Instant, sleep, timeout};
use withstand::{
    Backoff, Bulkhead, CallOptions, CircuitBreaker, Classification, Error, Fallback, Hedge, Jitter, MetricsObserver,
    Observers, Pipeline, Reason, Retry, RetryBudget, TracingObserver, Verdict,
};

use crate::{exposition::Series, service};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What was scraped at the end, and what was counted by hand.
pub(crate) struct Scraped {
    pub(crate) text: String,
    pub(crate) counted: BTreeMap<Series, f64>,
}

/// Runs once for all tests: the recorder and the registry are the process's.
pub(crate) fn scraped() -> &'static Scraped {
    static SCRAPED: OnceLock<Scraped> = OnceLock::new();
    SCRAPED.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run())
    })
}

/// The count by hand.
#[derive(Default)]
struct Tally(BTreeMap<Series, f64>);

impl Tally {
    fn add(&mut self, name: &str, labels: &[(&str, &str)], by: f64) {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        *self.0.entry((name.to_owned(), labels)).or_default() += by;
    }

    fn call(&mut self, pipeline: &str, outcome: &str, label: &str) {
        let labels = [("pipeline", pipeline), ("outcome", outcome), ("label", label)];
        self.add("withstand_call_duration_seconds_count", &labels, 1.0);
    }

    fn rejected_call(&mut self, pipeline: &str, reason: &str) {
        let labels = [("pipeline", pipeline), ("outcome", "rejected"), ("reason", reason), ("label", reason)];
        self.add("withstand_call_duration_seconds_count", &labels, 1.0);
    }

    fn attempt(&mut self, pipeline: &str, class: &str, outcome: &str, label: &str) {
        let labels = [("pipeline", pipeline), ("attempt_class", class), ("outcome", outcome), ("label", label)];
        self.add("withstand_attempt_duration_seconds_count", &labels, 1.0);
    }

    fn event(&mut self, name: &str, pipeline: &str, policy: &str, labels: &[(&str, &str)]) {
        let whose = [("pipeline", pipeline), ("policy", policy)];
        self.add(name, &[&whose, labels].concat(), 1.0);
    }

    fn retry(&mut self) {
        self.event("withstand_retries_total", "users-api", "retry", &[]);
    }

    fn rejection(&mut self, policy: &str, reason: &str) {
        self.event("withstand_rejections_total", "users-api", policy, &[("reason", reason)]);
    }

    fn timeout(&mut self, policy: &str, scope: &str, phase: &str) {
        self.event("withstand_timeouts_total", "users-api", policy, &[("scope", scope), ("phase", phase)]);
    }

    fn transition(&mut self, state: &str, trigger: &str) {
        let labels = [("state", state), ("trigger", trigger)];
        let labels = if trigger.is_empty() { &labels[..1] } else { &labels };
        self.event("withstand_circuit_transitions_total", "users-api", "breaker", labels);
    }

    fn gauge(&mut self, name: &str, pipeline: &str, policy: &str, value: f64) {
        self.add(name, &[("pipeline", pipeline), ("policy", policy)], value);
    }
}

/// A client of the service.
#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    address: SocketAddr,
}

impl Client {
    async fn get(&self, what: &str) -> reqwest::Result<StatusCode> {
        let response = self.http.get(format!("http://{}/do/{what}", self.address)).send().await?;
        let status = response.status();
        response.bytes().await?;
        Ok(status)
    }
}

fn classify(result: Result<&StatusCode, &reqwest::Error>) -> Classification {
    match result {
        Ok(status) if *status == StatusCode::TOO_MANY_REQUESTS => Verdict::throttled().label("http_429"),
        Ok(status) if status.is_server_error() => Verdict::transient().label("http_5xx"),
        Ok(status) if status.is_client_error() => Verdict::success().label("http_4xx"),
        Ok(_) => Verdict::success().label("http_2xx"),
        Err(error) if error.is_connect() => Verdict::unreached().label("connect"),
        Err(_) => Verdict::transient().label("io"),
    }
}

#[track_caller]
fn rejection<T, E>(result: Result<T, Error<E>>) -> Reason {
    result.err().and_then(|error| error.rejection().map(withstand::Rejection::reason)).expect("a rejection")
}

#[expect(clippy::too_many_lines, reason = "a story is told from its beginning to its end")]
async fn run() -> Scraped {
    let mut tally = Tally::default();
    let budget = |initial| RetryBudget::builder().ratio(0.5).initial(initial).cap(100);
    let breaker = CircuitBreaker::builder().name("breaker").consecutive_failures(4).consecutive_span(Duration::ZERO);
    let breaker = Arc::new(breaker.open_for(ms(200)).max_open_for(ms(200)).probes(2).build().unwrap());
    let permits = Bulkhead::builder().name("permits").limit(2).queue(1).max_wait(ms(900)).build().unwrap();
    let permits = Arc::new(permits);
    let backoff = Backoff::constant(ms(1)).jitter(Jitter::None);
    let users = Pipeline::builder("users-api")
        .timeout(ms(10_000))
        .retry(Retry::builder().max_attempts(2).backoff(backoff).own_budget(budget(50)))
        .bulkhead(permits.clone())
        .circuit_breaker(breaker.clone())
        .timeout(ms(1000))
        .classify(classify)
        // Beside another, which hears nothing: there is no subscriber.
        .observer(Observers::new().with(MetricsObserver::new()).with(TracingObserver::new()))
        .build()
        .unwrap();
    let users = Arc::new(users);

    // Before there is a recorder nothing is counted, though it pays into the budget.
    users.call(|| async { Ok(StatusCode::OK) }).await.unwrap();
    let mut balance = 50.0 + 0.5;
    let prometheus = PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(Matcher::Prefix("withstand".to_owned()), MetricsObserver::DURATION_BUCKETS)
        .unwrap()
        .install_recorder()
        .unwrap();
    let (address, requests) = service::serve(prometheus).await;
    let client = Client { http: reqwest::Client::builder().no_proxy().build().unwrap(), address };
    let call = |what: &'static str| {
        let (users, client) = (users.clone(), client.clone());
        async move { users.call(|| client.get(what)).await }
    };

    for what in ["ok/1", "ok/2", "ok/3", "missing/1", "missing/2"] {
        let label = if what.starts_with("ok") { "http_2xx" } else { "http_4xx" };
        call(what).await.unwrap();
        tally.attempt("users-api", "first", "success", label);
        tally.call("users-api", "success", label);
        balance += 0.5;
    }
    for what in ["flaky/1", "flaky/2", "flaky/3"] {
        assert_eq!(call(what).await.unwrap(), StatusCode::OK);
        tally.attempt("users-api", "first", "transient", "http_5xx");
        tally.retry();
        tally.attempt("users-api", "retry", "success", "http_2xx");
        tally.call("users-api", "success", "http_2xx");
        balance += 0.5 - 1.0;
    }

    assert_eq!(call("busy/1").await.unwrap(), StatusCode::TOO_MANY_REQUESTS);
    tally.attempt("users-api", "first", "throttled", "http_429");
    tally.retry();
    tally.attempt("users-api", "retry", "throttled", "http_429");
    tally.call("users-api", "throttled", "http_429");
    balance -= 1.0;

    // Both attempts are cut off.
    assert!(call("hang/1").await.unwrap_err().timed_out().is_some());
    for class in ["first", "retry"] {
        tally.attempt("users-api", class, "timed_out", "timed_out");
        tally.timeout("timeout-2", "attempt", "attempt");
    }
    tally.retry();
    tally.call("users-api", "timeout", "timeout");
    balance -= 1.0;

    // The caller goes away.
    assert!(timeout(ms(100), call("hang/2")).await.is_err());
    tally.attempt("users-api", "first", "cancelled", "cancelled");
    tally.call("users-api", "cancelled", "cancelled");

    // The caller comes too late.
    let late = CallOptions::new().deadline(Instant::now());
    let too_late = users.call_with(late, |_| client.get("ok/late")).await;
    assert!(too_late.unwrap_err().timed_out().is_some());
    let labels = [("pipeline", "users-api"), ("scope", "deadline"), ("phase", "entry")];
    tally.add("withstand_timeouts_total", &labels, 1.0);
    tally.call("users-api", "timeout", "timeout");

    // The operation panics.
    let panics = tokio::spawn({
        let users = users.clone();
        async move { users.call(|| async { panic!("as it is told to") }).await }
    });
    assert!(panics.await.unwrap_err().is_panic());
    tally.attempt("users-api", "first", "panicked", "panicked");
    tally.call("users-api", "panicked", "panicked");
    call("ok/4").await.unwrap();
    tally.attempt("users-api", "first", "success", "http_2xx");
    tally.call("users-api", "success", "http_2xx");
    balance += 0.5;

    // Four failures in a row open the circuit, which refuses what follows.
    for what in ["broken/1", "broken/2"] {
        assert_eq!(call(what).await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        tally.attempt("users-api", "first", "transient", "http_5xx");
        tally.retry();
        tally.attempt("users-api", "retry", "transient", "http_5xx");
        tally.call("users-api", "transient", "http_5xx");
        balance -= 1.0;
    }
    tally.transition("open", "consecutive");
    for _ in 0..3 {
        assert_eq!(rejection(call("ok/5").await), Reason::CircuitOpen);
        tally.rejection("breaker", "circuit_open");
        tally.rejected_call("users-api", "circuit_open");
    }
    let during = scrape(&client).await;
    assert!(during.contains("withstand_circuit_state{pipeline=\"users-api\",policy=\"breaker\"} 2\n"), "{during}");

    // After the break two probes close it.
    sleep(ms(250)).await;
    tally.transition("half_open", "");
    for what in ["ok/6", "ok/7"] {
        call(what).await.unwrap();
        tally.attempt("users-api", "first", "success", "http_2xx");
        tally.call("users-api", "success", "http_2xx");
        balance += 0.5;
    }
    tally.transition("closed", "probes");

    // By hand.
    let isolation = breaker.isolate();
    tally.transition("isolated", "");
    assert_eq!(rejection(call("ok/8").await), Reason::Isolated);
    tally.rejection("breaker", "isolated");
    tally.rejected_call("users-api", "isolated");
    drop(isolation);
    tally.transition("closed", "release");

    fall_back(&client, &mut tally).await;
    let _search = hedge(&client, &mut tally).await;

    // Two calls are in there, one waits, there is no place for a fourth.
    let in_flight = [call("hang/3"), call("hang/4")].map(tokio::spawn);
    until(|| requests.lock().unwrap().contains_key("hang/3") && requests.lock().unwrap().contains_key("hang/4")).await;
    let waiting = tokio::spawn(call("ok/9"));
    until(|| permits.queued() == 1).await;
    assert_eq!(rejection(call("ok/10").await), Reason::BulkheadFull);
    tally.rejection("permits", "bulkhead_full");
    tally.rejected_call("users-api", "bulkhead_full");
    let _isolation = breaker.isolate();
    tally.transition("isolated", "");
    tally.gauge("withstand_circuit_state", "users-api", "breaker", 3.0);
    tally.gauge("withstand_bulkhead_in_use", "users-api", "permits", 2.0);
    tally.gauge("withstand_bulkhead_limit", "users-api", "permits", 2.0);
    tally.gauge("withstand_bulkhead_queued", "users-api", "permits", 1.0);
    tally.gauge("withstand_budget_balance", "users-api", "retry", balance);

    let text = scrape(&client).await;
    waiting.abort();
    in_flight.iter().for_each(tokio::task::JoinHandle::abort);
    Scraped { text, counted: tally.0 }
}

/// Pipelines with a fallback: for what cannot be reached, for what is refused.
async fn fall_back(client: &Client, tally: &mut Tally) {
    let pipeline = |limit| {
        Pipeline::builder("avatars")
            .fallback(Fallback::value(StatusCode::OK))
            .bulkhead(Bulkhead::builder().limit(limit))
            .classify(classify)
            .observer(MetricsObserver::new())
            .build()
            .unwrap()
    };
    let (one, none) = (pipeline(1), pipeline(0));
    let nobody = Client { address: "127.0.0.1:1".parse().unwrap(), ..client.clone() };
    assert_eq!(one.call(|| nobody.get("ok/1")).await.unwrap(), StatusCode::OK);
    tally.attempt("avatars", "first", "unreached", "connect");
    tally.event("withstand_fallbacks_total", "avatars", "fallback", &[("outcome", "unreached"), ("end", "ok")]);
    tally.call("avatars", "fallback", "fallback");

    assert_eq!(none.call(|| client.get("ok/1")).await.unwrap(), StatusCode::OK);
    tally.event("withstand_rejections_total", "avatars", "bulkhead", &[("reason", "bulkhead_full")]);
    let labels = [("outcome", "rejected"), ("reason", "bulkhead_full"), ("end", "ok")];
    tally.event("withstand_fallbacks_total", "avatars", "fallback", &labels);
    tally.call("avatars", "fallback", "fallback");
    drop((one, none));
}

/// A pipeline whose first attempt is slow.
async fn hedge(client: &Client, tally: &mut Tally) -> impl Send + use<> {
    let budget = RetryBudget::builder().ratio(0.5).initial(5).cap(10);
    let search = Pipeline::builder("search")
        .hedge(Hedge::builder().delay(ms(50)).own_budget(budget))
        .classify(classify)
        .observer(MetricsObserver::new())
        .build()
        .unwrap();
    assert_eq!(search.call(|| client.get("slow-first/1")).await.unwrap(), StatusCode::OK);
    tally.event("withstand_hedges_total", "search", "hedge", &[("trigger", "delay")]);
    tally.attempt("search", "hedge", "success", "http_2xx");
    tally.attempt("search", "first", "superseded", "superseded");
    tally.call("search", "success", "http_2xx");
    tally.gauge("withstand_budget_balance", "search", "hedge", 5.0 - 1.0 + 0.5);
    search
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        sleep(ms(1)).await;
    }
}

async fn scrape(client: &Client) -> String {
    let url = format!("http://{}/metrics", client.address);
    client.http.get(url).send().await.unwrap().text().await.unwrap()
}
