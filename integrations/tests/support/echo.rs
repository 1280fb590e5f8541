//! A gRPC client and its messages: what a service would have compiled from its `.proto`, here without the compiler.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::{
    IntoRequest, IntoStreamingRequest, Response, Status, Streaming,
    body::Body,
    client::{Grpc, GrpcService},
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

pub(crate) const SAY: &str = "/echo.Echo/Say";
pub(crate) const LIST: &str = "/echo.Echo/List";

/// Messages as they are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Plain;

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

#[derive(Clone)]
pub(crate) struct EchoClient<S> {
    inner: Grpc<S>,
}

impl<S> EchoClient<S>
where
    S: GrpcService<Body, ResponseBody = Body, Error: std::fmt::Display>,
{
    pub(crate) fn new(channel: S) -> Self {
        Self { inner: Grpc::new(channel) }
    }

    pub(crate) fn max_encoding_message_size(mut self, limit: usize) -> Self {
        self.inner = self.inner.max_encoding_message_size(limit);
        self
    }

    pub(crate) async fn say(&mut self, request: impl IntoRequest<Bytes>) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.inner.unary(request.into_request(), PathAndQuery::from_static(SAY), Plain).await
    }

    /// The same method, with a stream to be said.
    pub(crate) async fn say_all(
        &mut self,
        request: impl IntoStreamingRequest<Message = Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        self.inner.client_streaming(request.into_streaming_request(), PathAndQuery::from_static(SAY), Plain).await
    }

    pub(crate) async fn list(
        &mut self,
        request: impl IntoRequest<Bytes>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.ready().await?;
        self.inner.server_streaming(request.into_request(), PathAndQuery::from_static(LIST), Plain).await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.inner.ready().await.map_err(|error| Status::unknown(format!("Service was not ready: {error}")))
    }
}
