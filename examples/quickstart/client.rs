//! The client: what an application has before it knows of pipelines. It asks one replica, once, and waits for ever.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::Bytes,
    http::{Request, StatusCode, header::RETRY_AFTER},
};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};

/// The header by which an attempt says that it is not the first of its call.
pub(crate) const REPEATED: &str = "x-repeated";

/// What the service is asked for.
#[derive(Clone, Debug)]
pub(crate) struct User {
    name: String,
}

impl User {
    /// What an application can show when nobody knows the user.
    pub(crate) fn anonymous() -> Self {
        Self { name: "anonymous".to_owned() }
    }

    /// Whether it is only that stand-in.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == "anonymous"
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No connection: the request was not sent.
    #[error("no connection")]
    Connect(#[source] legacy::Error),
    /// The connection broke before the answer.
    #[error("no answer")]
    NoAnswer(#[source] legacy::Error),
    /// What was sent or received is no user.
    #[error("nonsense")]
    Nonsense,
    /// The service asks to come back later.
    #[error("too many requests; again in {0:?}")]
    Throttled(Duration),
    /// Any other status than 200.
    #[error("status {0}")]
    Status(StatusCode),
}

impl From<legacy::Error> for ApiError {
    fn from(error: legacy::Error) -> Self {
        if error.is_connect() { Self::Connect(error) } else { Self::NoAnswer(error) }
    }
}

/// A client of all replicas.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Empty<Bytes>>,
    replicas: Vec<SocketAddr>,
}

impl Client {
    /// A client with connections of its own.
    pub(crate) fn new(replicas: Vec<SocketAddr>) -> Self {
        Self { http: legacy::Client::builder(TokioExecutor::new()).build_http(), replicas }
    }

    /// Gets a user. Each retry and each hedge asks another replica than the attempts before it.
    pub(crate) async fn get_user(&self, id: u32, attempt: u32, hedge: u32) -> Result<User, ApiError> {
        let turn = id + 3 * (attempt - 1) + 5 * hedge;
        let replica = self.replicas[turn as usize % self.replicas.len()];
        let mut request = Request::get(format!("http://{replica}/users/{id}"));
        if attempt > 1 || hedge > 0 {
            request = request.header(REPEATED, "yes");
        }
        let request = request.body(Empty::new()).map_err(|_| ApiError::Nonsense)?;

        let response = self.http.request(request).await?;
        match response.status() {
            StatusCode::OK => {
                let body = response.into_body().collect().await.map_err(|_| ApiError::Nonsense)?;
                let name = String::from_utf8(body.to_bytes().into()).map_err(|_| ApiError::Nonsense)?;
                Ok(User { name })
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
                Err(ApiError::Throttled(Duration::from_secs(seconds.unwrap_or(1))))
            }
            status => Err(ApiError::Status(status)),
        }
    }
}
