//! A single future cannot be repeated.

use withstand::{Pipeline, Retry};

async fn charge(cents: u32) -> Result<u32, String> {
    Ok(cents)
}

fn main() {
    let payments = Pipeline::builder("payments").retry(Retry::builder()).build().unwrap();
    let _call = payments.guard(charge(100));
}
