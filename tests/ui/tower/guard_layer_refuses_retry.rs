//! A request that is not kept cannot be sent again.

use withstand::{Pipeline, Retry, tower::PipelineLayer};

fn main() {
    let uploads = Pipeline::builder("uploads").retry(Retry::builder()).build().unwrap();
    let _layer = PipelineLayer::guard(uploads);
}
