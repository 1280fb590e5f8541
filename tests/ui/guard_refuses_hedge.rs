//! Nor can it run beside another attempt.

use withstand::{Pipeline, Hedge};

async fn charge(cents: u32) -> Result<u32, String> {
    Ok(cents)
}

fn main() {
    let payments = Pipeline::builder("payments").hedge(Hedge::builder()).build().unwrap();
    let _call = payments.guard(charge(100));
}
