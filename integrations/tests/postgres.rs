//! The classifier of the example `postgres`, on errors as tokio-postgres makes them: a server of a few lines tells them.
#![cfg(test)]

#[path = "../examples/postgres/classify.rs"]
mod classify;

use std::collections::HashSet;

use classify::{classify, classify_code, classify_connect};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_postgres::{Config, Error, NoTls, error::SqlState};
use withstand::{Classification, VerdictKind};

const SUCCESS: VerdictKind = VerdictKind::Success;
const TRANSIENT: VerdictKind = VerdictKind::Transient;
const UNREACHED: VerdictKind = VerdictKind::Unreached;
const THROTTLED: VerdictKind = VerdictKind::Throttled;
const FAILURE: VerdictKind = VerdictKind::Failure;

/// Codes, what they mean as the answer to a statement, and what while a connection is opened.
const CODES: &[(&str, VerdictKind, VerdictKind)] = &[
    // Serialization failure, deadlock, a lock that was not to be had: rolled back.
    ("40001", THROTTLED, THROTTLED),
    ("40P01", THROTTLED, THROTTLED),
    ("55P03", THROTTLED, THROTTLED),
    ("40003", TRANSIENT, UNREACHED),
    ("53000", THROTTLED, THROTTLED),
    ("53100", FAILURE, FAILURE),
    ("53200", THROTTLED, THROTTLED),
    ("53300", THROTTLED, THROTTLED),
    ("57P03", UNREACHED, UNREACHED),
    ("08001", UNREACHED, UNREACHED),
    ("08004", UNREACHED, UNREACHED),
    ("08006", TRANSIENT, UNREACHED),
    ("08007", TRANSIENT, UNREACHED),
    ("08P01", TRANSIENT, UNREACHED),
    ("57P01", TRANSIENT, UNREACHED),
    ("57P02", TRANSIENT, UNREACHED),
    ("57014", TRANSIENT, UNREACHED),
    ("XX000", FAILURE, FAILURE),
    ("58030", FAILURE, FAILURE),
    ("28P01", FAILURE, FAILURE),
    ("3D000", FAILURE, FAILURE),
    // There already, no such table, no such syntax, divided by zero, raised by a trigger.
    ("23505", SUCCESS, UNREACHED),
    ("42P01", SUCCESS, UNREACHED),
    ("42601", SUCCESS, UNREACHED),
    ("22012", SUCCESS, UNREACHED),
    ("P0001", SUCCESS, UNREACHED),
];

/// What the server does.
#[derive(Clone, Copy)]
enum Server {
    /// Answers a statement with an error.
    Refuses(&'static str),
    /// Breaks off under a statement.
    BreaksOff,
    /// Answers the login with an error.
    LetsNobodyIn(&'static str),
    /// Is gone before the login.
    IsGone,
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn refusal(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0C{code}\0Mno\0\0").as_bytes())
}

async fn serve(mut stream: DuplexStream, server: Server) -> std::io::Result<()> {
    let ready = message(b'Z', b"I");
    if matches!(server, Server::IsGone) {
        return Ok(());
    }
    let length = stream.read_u32().await?;
    stream.read_exact(&mut vec![0; length as usize - 4]).await?;
    if let Server::LetsNobodyIn(code) = server {
        return stream.write_all(&refusal(code)).await;
    }
    stream.write_all(&[message(b'R', &[0; 4]), ready.clone()].concat()).await?;
    while stream.read_u8().await? != b'Q' {}
    if let Server::Refuses(code) = server {
        stream.write_all(&[refusal(code), ready].concat()).await?;
        // Until the client has gone.
        stream.read_to_end(&mut Vec::new()).await?;
    }
    Ok(())
}

/// The error of a statement, and whether it is one of connecting.
async fn error(server: Server) -> (Error, bool) {
    let (near, far) = duplex(1024);
    drop(tokio::spawn(serve(far, server)));
    match Config::new().user("withstand").connect_raw(near, NoTls).await {
        Err(error) => (error, true),
        Ok((client, io)) => {
            drop(tokio::spawn(io));
            (client.batch_execute("SELECT 1").await.unwrap_err(), false)
        }
    }
}

fn kind(classification: Classification) -> VerdictKind {
    classification.verdict().kind()
}

#[tokio::test]
async fn each_code_has_its_verdict_for_statements_and_for_connecting() {
    for &(code, statement, connecting) in CODES {
        let (said, early) = error(Server::Refuses(code)).await;
        assert_eq!((said.code().map(SqlState::code), early), (Some(code), false));
        assert_eq!((code, kind(classify(&said))), (code, statement));
        let (said, early) = error(Server::LetsNobodyIn(code)).await;
        assert_eq!((said.code().map(SqlState::code), early), (Some(code), true));
        assert_eq!((code, kind(classify_connect(&said))), (code, connecting));
    }
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_statement_leaves_it_in_doubt_and_one_that_never_was_does_not() {
    let (broken, early) = error(Server::BreaksOff).await;
    assert_eq!((kind(classify(&broken)), early), (TRANSIENT, false), "{broken:?}");
    let (gone, early) = error(Server::IsGone).await;
    assert_eq!((kind(classify_connect(&gone)), early), (UNREACHED, true), "{gone:?}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = Config::new().user("withstand").host("127.0.0.1").port(free.port()).connect(NoTls).await;
    let refused = refused.err().unwrap();
    assert_eq!(kind(classify_connect(&refused)), UNREACHED, "{refused:?}");
}

#[tokio::test]
async fn what_we_do_wrong_ourselves_is_held_against_nobody() {
    let wrong = "no setting".parse::<Config>().unwrap_err();
    assert_eq!(kind(classify(&wrong)), VerdictKind::Ignored, "{wrong:?}");
}

#[test]
fn labels_are_few() {
    let codes = CODES.iter().map(|(code, ..)| classify_code(&SqlState::from_code(code)).label());
    assert!(codes.collect::<HashSet<_>>().len() < 12);
}

proptest! {
    #[test]
    fn no_code_panics_and_only_what_was_surely_not_done_is_repeated_whatever_it_was(code in "\\PC{0,6}|[0-9A-Z]{5}") {
        let said = classify_code(&SqlState::from_code(&code));
        // What a retry repeats though it is not idempotent.
        if matches!(kind(said), THROTTLED | UNREACHED) {
            let surely = ["40001", "40P01", "55P03", "57P03", "08001", "08004"];
            prop_assert!(surely.contains(&code.as_str()) || code.starts_with("53"), "{code}");
        }
    }
}
