//! What an operation holds across an await must be `Send`.

use std::rc::Rc;

use withstand::{Error, Pipeline};

async fn answer(number: &u32) -> Result<u32, String> {
    Ok(*number)
}

async fn ask() -> Result<u32, Error<String>> {
    let users = Pipeline::standard("users").build().unwrap();
    users
        .call(|| async {
            let number = Rc::new(7);
            answer(&number).await
        })
        .await
}

fn main() {
    let _ = ask();
}
