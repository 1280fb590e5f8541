//! gRPC with tonic (feature `tonic`): what a status means, and what a server is told about an attempt.
//!
//! For tonic 0.14, of which it turns on nothing: transport, router, code generation and TLS are yours to choose.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tonic::{Request, Response, Status};
//! use withstand::{CallOptions, Pipeline, tonic::{TonicClassifier, request}};
//!
//! # #[derive(Clone)] struct GetUser { id: u32 }
//! # #[derive(Clone)] struct UsersClient; // as tonic-build makes it
//! # impl UsersClient {
//! #     async fn get_user(&mut self, request: impl tonic::IntoRequest<GetUser>) -> Result<Response<String>, Status> {
//! #         Ok(Response::new(format!("user {}", request.into_request().into_inner().id)))
//! #     }
//! # }
//! # let client = UsersClient;
//! let users = Pipeline::standard("users").classifier(TonicClassifier::new()).build()?;
//!
//! let user = users
//!     .call_with(CallOptions::new(), |attempt| {
//!         let (mut client, request) = (client.clone(), request(GetUser { id: 7 }, attempt));
//!         async move { client.get_user(request).await }
//!     })
//!     .await?; // a `withstand::Error<Status>`, or in a handler of tonic's just a `Status`: see below
//! assert_eq!(user.into_inner(), "user 7");
//! # Ok(())
//! # }
//! ```
//!
//! Clients that tonic generates are cheap to clone, and each attempt has one of its own, since their methods take `&mut
//! self`.
//!
//! | around | classifier | sees | retries and hedges |
//! |---|---|---|---|
//! | the call of a method, as above | [`TonicClassifier`] | the status, wherever it comes from | yes |
//! | what the call does with a stream, see below | [`TonicClassifier`] | the status at its end | yes |
//! | a channel, as a layer (feature `tower`) | [`ChannelClassifier`] | the head of the response | no: tonic's bodies cannot be sent twice |
//!
//! # What the server is told
//!
//! [`request`] has the time that is left in `grpc-timeout` and the number of attempts before in
//! `grpc-previous-rpc-attempts`. Handlers of tonic's end at that time by themselves.
//!
//! So does tonic's own channel: it reads the header too, and ends the request in this process when that time is up, up to a
//! millisecond before the timeout of the pipeline. Then the error is an [`Error::Operation`] with tonic's status,
//! `CANCELLED` and "Timeout expired", instead of an [`Error::Timeout`]. [`classify_status`] knows it for what it is, a
//! timeout: transient. What is lost is that a pipeline holds nothing against anybody if it is this process that stood
//! still: tonic's channel does not tell.
//!
//! # Methods that may not be repeated
//!
//! gRPC does not say which methods these are, so you do, for each call:
//! `CallOptions::new().idempotency(Idempotency::Unsafe)`. Such a call is repeated only if it never began (no connection, a
//! stream that was refused) or was turned away (`RESOURCE_EXHAUSTED`), and is never hedged. Without it a call counts as
//! one that may be repeated.
//!
//! # Streams
//!
//! A call ends with the head of the response where the method gives a stream: `UNAVAILABLE` half an hour later is nobody's
//! business but the reader's, and no timeout of the pipeline ends it. If the stream is short, read it within the call, and
//! its status counts:
//!
//! ```
//! # use tonic::{Response, Status};
//! # use withstand::{Pipeline, tonic::{TonicClassifier, request}};
//! # #[derive(Clone)] struct ListUsers;
//! # #[derive(Clone)] struct UsersClient;
//! # impl UsersClient {
//! #     async fn list_users(&mut self, _: tonic::Request<ListUsers>) -> Result<Response<tonic::Streaming<u32>>, Status> {
//! #         Err(Status::not_found("none"))
//! #     }
//! # }
//! # async fn example(client: UsersClient) -> Result<(), Box<dyn std::error::Error>> {
//! # let users = Pipeline::standard("users").classifier(TonicClassifier::new()).build()?;
//! let all = users
//!     .call_with(Default::default(), |attempt| {
//!         let (mut client, request) = (client.clone(), request(ListUsers, attempt));
//!         async move {
//!             let mut stream = client.list_users(request).await?.into_inner();
//!             let mut all = Vec::new();
//!             while let Some(user) = stream.message().await? {
//!                 all.push(user);
//!             }
//!             Ok::<_, Status>(all)
//!         }
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A request that is a stream is made anew by the closure for each attempt. One that cannot be is sent by
//! [`guard`](crate::Pipeline::guard), where no layer repeats, and without what [`request`] tells.
//!
//! # In a handler of a server
//!
//! An [`Error<Status>`](crate::Error) becomes a [`Status`] by `?`: the operation's own status as it is, a timeout
//! `DEADLINE_EXCEEDED`, a rejection `UNAVAILABLE`. The two have the [`TimedOut`](crate::TimedOut) or the
//! [`Rejection`](crate::Rejection) as their source, which does not leave the process.
//!
//! ```
//! # use std::time::Duration;
//! # use tonic::{Code, Request, Response, Status};
//! # use withstand::{Pipeline, Timeout, layers, tonic::TonicClassifier};
//! struct Greeter { users: Pipeline<layers![Timeout], TonicClassifier> }
//!
//! impl Greeter {
//!     async fn greet(&self, _: Request<u32>) -> Result<Response<String>, Status> {
//!         let name = self.users.call(name).await?;
//!         Ok(Response::new(format!("hello, {name}")))
//!     }
//! }
//! # async fn name() -> Result<String, Status> { std::future::pending().await }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), withstand::ConfigError> {
//! # let users = Pipeline::builder("users").timeout(Duration::from_secs(1)).classifier(TonicClassifier::new()).build()?;
//! # let status = Greeter { users }.greet(Request::new(7)).await.unwrap_err();
//! # assert_eq!(status.code(), Code::DeadlineExceeded);
//! # Ok(())
//! # }
//! ```
//!
//! The time that its client has left is in the request's `grpc-timeout`. With the feature `deadlines`, calls in the handler
//! end by then and tell the next server what is left of it, if they are made in a scope:
//!
#![cfg_attr(feature = "deadlines", doc = "```")]
#![cfg_attr(not(feature = "deadlines"), doc = "```ignore")]
//! use tonic::{Request, metadata::MetadataMap};
//! use withstand::Deadline;
//!
//! fn deadline(metadata: &MetadataMap) -> Option<Deadline> {
//!     let time = metadata.get("grpc-timeout")?.to_str().ok().and_then(Deadline::parse_timeout)?;
//!     Some(Deadline::after(time)) // deadline.scope(async { .. }).await
//! }
//! # let mut request = Request::new(());
//! # request.set_timeout(std::time::Duration::from_secs(3));
//! # assert!(deadline(request.metadata()).unwrap().remaining() <= std::time::Duration::from_secs(3));
//! # assert!(deadline(Request::new(()).metadata()).is_none());
//! ```
//!
//! # Around a channel
//!
//! One layer for all methods of all clients of a channel: circuit breaker, bulkhead and timeouts, once. With the feature
//! `tower`:
//!
#![cfg_attr(feature = "tower", doc = "```")]
#![cfg_attr(not(feature = "tower"), doc = "```ignore")]
//! use std::time::Duration;
//! use tonic::Status;
//! use tower::ServiceBuilder;
//! use withstand::{CircuitBreaker, Pipeline, tonic::{ChannelClassifier, ChannelRequests}, tower::PipelineLayer};
//!
//! let pipeline = Pipeline::builder("users")
//!     .timeout(Duration::from_secs(1))
//!     .circuit_breaker(CircuitBreaker::builder())
//!     .classifier(ChannelClassifier::new())
//!     .build()?;
//! # let channel = tower::service_fn(|_: http::Request<tonic::body::Body>| async {
//! #     Ok::<_, std::io::Error>(http::Response::new(tonic::body::Body::empty()))
//! # });
//! let channel = ServiceBuilder::new()
//!     .map_err(Status::from)
//!     .layer(PipelineLayer::with_requests(pipeline, ChannelRequests::new()))
//!     .service(channel);
//! let users = UsersClient::new(channel);
//! # struct UsersClient<T>(T); // bounds as tonic-build has them
//! # impl<T: tonic::client::GrpcService<tonic::body::Body, Error: Into<Box<dyn std::error::Error + Send + Sync>>>> UsersClient<T> {
//! #     fn new(channel: T) -> Self {
//! #         Self(channel)
//! #     }
//! # }
//! # Ok::<(), withstand::ConfigError>(())
//! ```
//!
//! Retries go around the methods, as above: what the layer refuses keeps its verdict there.
//!
//! # Sources
//!
//! - [Status codes](https://github.com/grpc/grpc/blob/master/doc/statuscodes.md)
//! - [gRPC over HTTP/2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), and
//!   [what an HTTP status means](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md)
//! - [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md): pushback and the number of attempts

mod cause;
mod channel;
mod classifier;
mod request;

use std::sync::Arc;

use ::tonic::Status;

pub use channel::ChannelClassifier;
#[cfg(feature = "tower")]
pub use channel::ChannelRequests;
pub use classifier::{TonicClassifier, classify_status, with_pushback};
pub use request::request;

use crate::error::Error;

/// What a caller is told: see [the page of this module](crate::tonic#in-a-handler-of-a-server).
///
/// The operation's own error is a [`Status`] as it is, or what tonic makes of it. A timeout is `DEADLINE_EXCEEDED`, also
/// one of tonic's channel or its server, which call it `CANCELLED`. A rejection is `UNAVAILABLE`.
impl<E> From<Error<E>> for Status
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn from(error: Error<E>) -> Self {
        match error {
            Error::Operation(error) => with_code_of_timeout(Self::from_error(error.into())),
            Error::Timeout(timed_out) => {
                let mut status = Self::deadline_exceeded(timed_out.to_string());
                status.set_source(Arc::new(timed_out));
                status
            }
            Error::Rejected(rejection) => {
                let mut status = Self::unavailable(rejection.to_string());
                status.set_source(Arc::new(rejection));
                status
            }
        }
    }
}

/// A timeout of tonic's channel, or of its server, has the code that gRPC has for it.
fn with_code_of_timeout(status: Status) -> Status {
    if !cause::is_timeout(&status) && !classifier::is_timeout_of_server(&status) {
        return status;
    }
    let mut timeout = Status::deadline_exceeded(status.message());
    timeout.set_source(Arc::new(status));
    timeout
}
