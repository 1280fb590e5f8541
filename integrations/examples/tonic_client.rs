//! A gRPC client of tonic's that withstands the bad times of its server, adopted in few lines.
//!
//! ```text
//! cargo run --manifest-path integrations/Cargo.toml --example tonic_client   # a few seconds, then it ends
//! ```
//!
//! The server is in this process, on loopback, and does as it is told: it is busy, asks to be left alone for a while, hangs,
//! is down, and comes back. It prints what each request tells it: the time that is left, and how many attempts were before.

use std::{
    collections::VecDeque,
    error::Error,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State, response::IntoResponse, routing::post};
use bytes::Bytes;
use tokio::{
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tower::service_fn;
use withstand::{
    Backoff, CallOptions, CircuitBreaker, Idempotency, Pipeline, Retry, Timeout, layers,
    tonic::{TonicClassifier, request},
};

// What tonic-build would make of a `.proto`: this example does without the compiler.
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/support/echo.rs"]
mod echo;

use echo::{EchoClient, Plain, SAY};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How long the circuit stays open.
const BREAK: Duration = ms(500);

type Layers = layers![Timeout, Retry, Arc<CircuitBreaker>, Timeout];

/// A client with its pipeline.
struct Echo {
    client: EchoClient<Channel>,
    pipeline: Pipeline<Layers, TonicClassifier>,
    breaker: Arc<CircuitBreaker>,
}

impl Echo {
    fn new(channel: Channel) -> Result<Self, Box<dyn Error>> {
        let breaker = CircuitBreaker::builder().consecutive_failures(6).consecutive_span(Duration::ZERO);
        let breaker = Arc::new(breaker.open_for(BREAK).max_open_for(BREAK).build()?);
        // `Pipeline::standard("echo").classifier(TonicClassifier::new()).build()?` does for most; here its numbers are
        // smaller, so that all of it is over in some seconds.
        let pipeline = Pipeline::builder("echo")
            .timeout(ms(800))
            .retry(Retry::builder().max_attempts(3).backoff(Backoff::exponential(ms(20))))
            .circuit_breaker(breaker.clone())
            .timeout(ms(300))
            .classifier(TonicClassifier::new())
            .build()?;
        Ok(Self { client: EchoClient::new(channel), pipeline, breaker })
    }

    /// This was `self.client.clone().say(text).await` once. The error of a pipeline becomes a status by `?`.
    async fn say(&self, text: &'static str, options: CallOptions) -> Result<String, Status> {
        let attempt = |attempt| {
            let (mut client, request) = (self.client.clone(), request(Bytes::from(text), attempt));
            async move { client.say(request).await }
        };
        let said = self.pipeline.call_with(options, attempt).await?;
        Ok(String::from_utf8_lossy(said.get_ref()).into_owned())
    }

    /// Calls, and says what came of it.
    async fn tell(&self, options: CallOptions) -> Result<String, Code> {
        let began = Instant::now();
        let result = self.say("hello", options).await;
        let took = began.elapsed().as_millis();
        match &result {
            Ok(said) => println!("  client: {said:?} after {took} ms"),
            Err(status) => println!("  client: {:?} after {took} ms: {}", status.code(), status.message()),
        }
        result.map_err(|status| status.code())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let script = Script::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = Arc::new(Notify::new());
    let server = serve(listener, script.clone(), stop.clone());
    let echo = Echo::new(Endpoint::from_shared(format!("http://{address}/"))?.connect_lazy())?;
    let (any, once) = (CallOptions::new(), CallOptions::new().idempotency(Idempotency::Unsafe));

    println!("All is well.");
    assert_eq!(echo.tell(any).await.as_deref(), Ok("hello"));

    println!("\nThe server is busy twice: UNAVAILABLE is repeated.");
    script.is([Answer::fails(Code::Unavailable), Answer::fails(Code::Unavailable)]);
    assert_eq!(echo.tell(any).await.as_deref(), Ok("hello"));

    println!("\nIt asks to be left alone for 250 ms, in grpc-retry-pushback-ms.");
    script.is([Answer::pushes_back("250")]);
    assert_eq!(echo.tell(any).await.as_deref(), Ok("hello"));

    println!("\nIt asks not to be asked again.");
    script.is([Answer::pushes_back("-1")]);
    assert_eq!(echo.tell(any).await, Err(Code::ResourceExhausted));

    println!("\nIt hangs: each attempt has 300 ms, or what is left of the 800 ms of the whole call.");
    script.is([Answer::Hangs, Answer::Hangs, Answer::Hangs]);
    assert_eq!(echo.tell(any).await, Err(Code::DeadlineExceeded));

    println!("\nNOT_FOUND is an answer: neither repeated nor held against anybody.");
    script.is([Answer::fails(Code::NotFound)]);
    assert_eq!(echo.tell(any).await, Err(Code::NotFound));

    println!("\nA payment may be carried out only once: UNAVAILABLE is not repeated.");
    script.is([Answer::fails(Code::Unavailable)]);
    assert_eq!(echo.tell(once).await, Err(Code::Unavailable));

    println!("\nThe server is gone: what never got there is repeated all the same, until the circuit opens.");
    stop.notify_one();
    server.await?;
    for _ in 0..3 {
        assert_eq!(echo.tell(once).await, Err(Code::Unavailable));
    }
    println!("  the circuit is {}", echo.breaker.state());

    println!("\nIt is back, and the circuit lets calls through again after {} ms.", BREAK.as_millis());
    let _server = serve(TcpListener::bind(address).await?, script, stop);
    sleep(BREAK + ms(100)).await;
    assert_eq!(echo.tell(once).await.as_deref(), Ok("hello"));
    Ok(())
}

/// What becomes of a request.
enum Answer {
    Fails(Status),
    Hangs,
}

impl Answer {
    fn fails(code: Code) -> Self {
        Self::Fails(Status::new(code, "said the server"))
    }

    fn pushes_back(pushback: &'static str) -> Self {
        let mut status = Status::resource_exhausted("said the server");
        if let Ok(pushback) = pushback.parse() {
            status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
        }
        Self::Fails(status)
    }
}

/// What becomes of the next requests; all others are said back.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<VecDeque<Answer>>>);

impl Script {
    fn is(&self, answers: impl IntoIterator<Item = Answer>) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = answers.into_iter().collect();
    }

    async fn answer(self, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let text = |name| request.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
        let (left, previous) = (text("grpc-timeout"), text("grpc-previous-rpc-attempts"));
        println!("  server: a request with grpc-timeout {left}, grpc-previous-rpc-attempts {previous}");
        let next = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front();
        match next {
            None => Ok(Response::new(request.into_inner())),
            Some(Answer::Fails(status)) => Err(status),
            Some(Answer::Hangs) => pending().await,
        }
    }
}

fn serve(listener: TcpListener, script: Script, stop: Arc<Notify>) -> JoinHandle<()> {
    let say = async |State(script): State<Script>, request: axum::extract::Request| {
        let service = service_fn(move |request| script.clone().answer(request));
        tonic::server::Grpc::new(Plain).unary(service, request).await.into_response()
    };
    let routes = Router::new().route(SAY, post(say)).with_state(script);
    tokio::spawn(async move {
        let incoming = TcpIncoming::from(listener);
        if let Err(error) = Server::builder().serve_with_incoming_shutdown(routes, incoming, stop.notified()).await {
            println!("  server: {error}");
        }
    })
}
