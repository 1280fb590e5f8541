//! A channel of tonic with a pipeline around it, and a gRPC service that has bad days.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Extension, Router, extract::State, response::IntoResponse, routing::post};
use bytes::Bytes;
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status, transport::Endpoint};
use tower::{Service, ServiceBuilder};
use withstand::{
    Bulkhead, CircuitBreaker, Pipeline,
    tonic::{ChannelClassifier, ChannelRequests},
    tower::PipelineLayer,
};

use crate::{
    echo::{EchoClient, Plain, SAY},
    ms,
    server::{
        Connection,
        Fate::{Answered, Busy, Hangs, Reset},
        Fates, Server,
    },
};

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
            assert!(request.metadata().contains_key("grpc-timeout"), "it is told how much time is left");
            Ok(Response::new(request.into_inner()))
        })
    }
}

async fn serve(fates: Fates) -> Server {
    let echo = async |State(fates), Extension(connection), request: axum::extract::Request| {
        let mut grpc = tonic::server::Grpc::new(Plain);
        grpc.unary(Echo(fates, connection), request).await.into_response()
    };
    Server::start(Router::new().route(SAY, post(echo)).with_state(fates)).await
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
        .classifier(ChannelClassifier::new())
        .build()
        .unwrap();
    let channel = Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    let layer = PipelineLayer::with_requests(pipeline, ChannelRequests::new());
    let client = EchoClient::new(ServiceBuilder::new().map_err(Status::from).layer(layer).service(channel));
    let say = async |fate| {
        fates.are([fate]);
        said(client.clone()).await.map_err(|status| status.code())
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
        let status = said(client.clone()).await.unwrap_err();
        assert_eq!(status.message().contains("the circuit is open"), call == 5, "{status}");
    }
    server.start_anew().await;
    sleep(ms(250)).await;
    assert_eq!(say(Answered).await, Ok("hello".into()));
}

async fn said<S>(mut client: EchoClient<S>) -> Result<Bytes, Status>
where
    S: tonic::client::GrpcService<tonic::body::Body, ResponseBody = tonic::body::Body, Error = Status>,
{
    client.say(Bytes::from("hello")).await.map(Response::into_inner)
}
