//! A fallback answers with what the operation would have given.

use withstand::{Fallback, Pipeline};

async fn name_of(id: u32) -> Result<String, std::io::Error> {
    Ok(id.to_string())
}

fn main() {
    let users = Pipeline::builder("users").fallback(Fallback::value("somebody")).build().unwrap();
    let _call = users.call(|| name_of(7));
}
