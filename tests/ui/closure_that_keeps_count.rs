//! Attempts may run side by side, so the closure that makes them cannot change what it captures.

use withstand::{Error, Pipeline};

async fn answer(number: u32) -> Result<u32, String> {
    Ok(number)
}

async fn ask() -> Result<u32, Error<String>> {
    let users = Pipeline::standard("users").build().unwrap();
    let mut attempts = 0;
    users
        .call(|| {
            attempts += 1;
            answer(attempts)
        })
        .await
}

fn main() {
    let _ = ask();
}
