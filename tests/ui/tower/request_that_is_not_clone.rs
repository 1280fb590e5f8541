//! A retry may send a request again, and so has to keep one.

use tower::{Layer, Service, service_fn};
use withstand::{Pipeline, Retry, tower::PipelineLayer};

struct Upload(Vec<u8>);

async fn store(upload: Upload) -> Result<usize, String> {
    Ok(upload.0.len())
}

fn main() {
    let uploads = Pipeline::builder("uploads").retry(Retry::builder()).build().unwrap();
    let mut service = PipelineLayer::new(uploads).layer(service_fn(store));
    let _response = service.call(Upload(vec![7]));
}
