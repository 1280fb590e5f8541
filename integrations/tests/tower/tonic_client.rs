//! A channel of tonic with a pipeline around it, and a gRPC service that has bad days.

use std::{
    error::Error as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Extension, Router, extract::State, response::IntoResponse, routing::post};
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::time::sleep;
use tonic::{
    Code, ConnectError, Request, Response, Status,
    body::Body,
    client::GrpcService,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{self, Endpoint},
};
use tower::{Service, ServiceBuilder};
use withstand::{Bulkhead, CircuitBreaker, Classification, Classify, Error, Pipeline, Verdict, tower::PipelineLayer};

use crate::{
    ms,
    server::{
        Connection,
        Fate::{Answered, Busy, Hangs, Reset},
        Fates, Server,
    },
};

/// Messages as they are: what a service would have compiled from its `.proto`.
#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}

/// The service: says what it is told.
#[derive(Clone)]
struct Echo(Fates, Connection);

impl Service<Request<Bytes>> for Echo {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let Self(fates, connection) = self.clone();
        Box::pin(async move {
            fates.befall(&connection).await.map_err(|_| Status::unavailable("busy"))?;
            Ok(Response::new(request.into_inner()))
        })
    }
}

async fn serve(fates: Fates) -> Server {
    let echo = async |State(fates), Extension(connection), request: axum::extract::Request| {
        let mut grpc = tonic::server::Grpc::new(Plain);
        grpc.unary(Echo(fates, connection), request).await.into_response()
    };
    Server::start(Router::new().route("/echo.Echo/Say", post(echo)).with_state(fates)).await
}

/// Of a response only the head is there: its status if the call failed before there was a message.
struct Grpc;

impl<B> Classify<http::Response<B>, transport::Error> for Grpc {
    fn classify(&self, result: Result<&http::Response<B>, &transport::Error>) -> Classification {
        match result {
            Ok(response) => match Status::from_header_map(response.headers()).map(|status| status.code()) {
                Some(Code::Unavailable) => Verdict::transient().label("unavailable"),
                _ => Verdict::success().into(),
            },
            Err(error) => {
                let mut causes = std::iter::successors(error.source(), |error| (*error).source());
                match causes.any(|cause| cause.is::<ConnectError>()) {
                    true => Verdict::unreached().label("connect"),
                    false => Verdict::transient().label("broken_off"),
                }
            }
        }
    }
}

/// What the stub says of it.
fn status(error: Error<transport::Error>) -> Status {
    match error {
        Error::Operation(error) => Status::from_error(error.into()),
        Error::Timeout(timed_out) => Status::deadline_exceeded(timed_out.to_string()),
        error => Status::unavailable(error.to_string()),
    }
}

#[tokio::test]
async fn a_channel_of_tonic_withstands_a_service_that_is_busy_hangs_resets_and_is_killed() {
    let fates = Fates::default();
    let mut server = serve(fates.clone()).await;
    let bulkhead = Arc::new(Bulkhead::builder().limit(1).build().unwrap());
    let breaker = CircuitBreaker::builder()
        .consecutive_failures(4)
        .consecutive_span(Duration::ZERO)
        .open_for(ms(200))
        .growth(1.0);
    let pipeline = Pipeline::builder("echo")
        .timeout(ms(250))
        .bulkhead(bulkhead.clone())
        .circuit_breaker(breaker)
        .classifier(Grpc)
        .build()
        .unwrap();
    let channel = Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    // A body of tonic's cannot be cloned.
    let service = ServiceBuilder::new().map_err(status).layer(PipelineLayer::guard(pipeline)).service(channel);
    let stub = tonic::client::Grpc::new(service);
    let say = async |fate| {
        fates.are([fate]);
        said(stub.clone()).await.map_err(|status| status.code())
    };

    assert_eq!(say(Answered).await, Ok("hello".into()));
    for (fate, code) in [(Busy, Code::Unavailable), (Hangs, Code::DeadlineExceeded)] {
        assert_eq!(say(fate).await, Err(code));
        assert_eq!(bulkhead.in_use(), 0);
    }
    assert!(say(Reset).await.is_err());
    assert_eq!(say(Answered).await, Ok("hello".into()), "over a new connection");

    server.kill().await;
    for call in 1..=5 {
        let status = said(stub.clone()).await.unwrap_err();
        assert_eq!(status.message().contains("the circuit is open"), call == 5, "{status}");
    }
    server.start_anew().await;
    sleep(ms(250)).await;
    assert_eq!(say(Answered).await, Ok("hello".into()));
}

/// As a stub does it.
async fn said<S>(mut stub: tonic::client::Grpc<S>) -> Result<Bytes, Status>
where
    S: GrpcService<Body, ResponseBody = Body, Error = Status>,
{
    stub.ready().await?;
    let path = PathAndQuery::from_static("/echo.Echo/Say");
    stub.unary(Request::new(Bytes::from("hello")), path, Plain).await.map(Response::into_inner)
}
