//! A gRPC service that answers as it is told, and notes what it was told about each attempt.

use std::{
    collections::VecDeque,
    future::pending,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Extension, Router, extract::State, response::IntoResponse, routing::post};
use bytes::Bytes;
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Request, Response, Status,
    metadata::MetadataMap,
    transport::{Channel, Endpoint, server::TcpIncoming},
};
use tower::service_fn;
use withstand::{
    Attempt, Backoff, CallOptions, Jitter, Outcome, Pipeline, Policy, Retry, layers,
    tonic::{TonicClassifier, request},
};

use crate::{
    echo::{EchoClient, LIST, Plain, SAY},
    ms,
    server::{Connection, Server},
};

/// What becomes of a request.
pub(crate) enum Answer {
    /// It is said back.
    Echo,
    Fails(Status),
    /// Some messages, and then the status.
    Streams(Vec<&'static str>, Status),
    /// Some messages, and then the connection is reset.
    BreaksOff(Vec<&'static str>),
    Hangs,
    Resets,
}

/// What a handler has to say: messages, and what is after them.
struct Said {
    messages: Vec<Bytes>,
    end: Option<Status>,
    resets: Option<Connection>,
}

impl Said {
    fn of(messages: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        Self { messages: messages.into_iter().map(Into::into).collect(), end: None, resets: None }
    }
}

/// What a request told.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) timeout: Option<String>,
    pub(crate) previous: Option<String>,
}

/// What becomes of the next requests, one after the other; all others are said back.
#[derive(Clone, Default)]
pub(crate) struct Script {
    next: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// How many handlers there are.
    pub(crate) running: Arc<AtomicUsize>,
}

/// Where a request came from, if that can be reset.
type Origin = Option<Extension<Connection>>;

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Script {
    pub(crate) fn is(&self, answers: impl IntoIterator<Item = Answer>) {
        *self.next.lock().unwrap() = answers.into_iter().collect();
    }

    /// What was told since this was last asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    fn note(&self, metadata: &MetadataMap) -> Running {
        let text = |name| metadata.get(name).map(|value| value.to_str().unwrap().to_owned());
        let (timeout, previous) = (text("grpc-timeout"), text("grpc-previous-rpc-attempts"));
        self.seen.lock().unwrap().push(Seen { at: Instant::now(), timeout, previous });
        self.running.fetch_add(1, SeqCst);
        Running(self.running.clone())
    }

    async fn answer(self, request: Request<Bytes>, connection: Origin) -> Result<Said, Status> {
        let _running = self.note(request.metadata());
        let next = self.next.lock().unwrap().pop_front();
        match next.unwrap_or(Answer::Echo) {
            Answer::Echo => Ok(Said::of([request.into_inner()])),
            Answer::Fails(status) => Err(status),
            Answer::Streams(messages, status) => Ok(Said { end: Some(status), ..Said::of(messages) }),
            Answer::BreaksOff(messages) => {
                Ok(Said { resets: connection.map(|Extension(origin)| origin), ..Said::of(messages) })
            }
            Answer::Hangs => pending().await,
            Answer::Resets => {
                connection.unwrap().reset();
                pending().await
            }
        }
    }

    pub(crate) fn routes(&self) -> Router {
        let say = async |State(script): State<Self>, connection: Origin, request: axum::extract::Request| {
            let service = service_fn(move |request| {
                let answer = script.clone().answer(request, connection.clone());
                async { Ok(Response::new(answer.await?.messages.concat().into())) }
            });
            tonic::server::Grpc::new(Plain).unary(service, request).await.into_response()
        };
        let list = async |State(script): State<Self>, connection: Origin, request: axum::extract::Request| {
            let service = service_fn(move |request| {
                let answer = script.clone().answer(request, connection.clone());
                async {
                    let Said { messages, end, resets } = answer.await?;
                    let all: Vec<_> = messages.into_iter().map(Ok).chain(end.map(Err)).collect();
                    let rest: Pin<Box<dyn Stream<Item = _> + Send>> = match resets {
                        Some(connection) => {
                            // When the messages are on their way.
                            drop(tokio::spawn(async move {
                                sleep(ms(50)).await;
                                connection.reset();
                            }));
                            Box::pin(tokio_stream::pending())
                        }
                        None => Box::pin(tokio_stream::empty()),
                    };
                    Ok(Response::new(tokio_stream::iter(all).chain(rest)))
                }
            });
            tonic::server::Grpc::new(Plain).server_streaming(service, request).await.into_response()
        };
        Router::new().route(SAY, post(say)).route(LIST, post(list)).with_state(self.clone())
    }

    /// Whose connections can be reset.
    pub(crate) async fn serve(&self) -> Server {
        Server::start(self.routes()).await
    }

    /// By tonic's own transport, which heeds the time that it is told, or its own.
    pub(crate) async fn serve_by_tonic(&self, timeout: Option<Duration>) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = tonic::transport::Server::builder();
        if let Some(timeout) = timeout {
            server = server.timeout(timeout);
        }
        let routes = self.routes();
        let served = async move { server.serve_with_incoming(routes, TcpIncoming::from(listener)).await.unwrap() };
        (address, tokio::spawn(served))
    }
}

pub(crate) fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}/")).unwrap().connect_lazy()
}

/// An address at which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub(crate) type Retrying = Pipeline<layers![Retry], TonicClassifier>;

/// Retries soon, and nothing else. Ten times it may, by its budget.
pub(crate) fn retrying(attempts: u32) -> Retrying {
    Pipeline::builder("echo")
        .retry(Retry::builder().max_attempts(attempts).backoff(Backoff::constant(ms(30)).jitter(Jitter::None)))
        .classifier(TonicClassifier::new())
        .build()
        .unwrap()
}

/// A call of `Say` as a user makes it.
pub(crate) async fn say<P>(
    pipeline: &Pipeline<P, TonicClassifier>,
    channel: &Channel,
    options: CallOptions,
) -> Outcome<Bytes, Status>
where
    P: Policy<Bytes, Status>,
{
    let client = EchoClient::new(channel.clone());
    let attempt = |attempt: Attempt| {
        let (mut client, request) = (client.clone(), request(Bytes::from("hello"), attempt));
        async move { client.say(request).await.map(Response::into_inner) }
    };
    pipeline.outcome_with(options, attempt).await
}
