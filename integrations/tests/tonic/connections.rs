//! Connections that are refused, break, and servers that are killed; and what the caller's own doing comes to.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use tokio::time::sleep;
use tonic::{Code, Request, Status, transport::Endpoint};
use withstand::{CallOptions, Idempotency, Verdict, tonic::request};

use crate::{
    echo::EchoClient,
    ms,
    world::{Answer, Script, channel, nobody, retrying, say},
};

const ONCE: CallOptions = CallOptions::new().idempotency(Idempotency::Unsafe);

#[tokio::test]
async fn where_nobody_listens_nothing_was_reached_and_even_what_may_not_be_repeated_is() {
    let address = nobody().await;
    let outcome = say(&retrying(1), &channel(address), ONCE).await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::unreached(), "grpc_connect"));
    assert_eq!(outcome.result.unwrap_err().operation().map(Status::code), Some(Code::Unavailable));

    // A name that nobody has, and an address that lets nobody in.
    let unknown = Endpoint::from_static("http://nobody.invalid:1/").connect_lazy();
    let silent = Endpoint::from_static("http://192.0.2.1:1/").connect_timeout(ms(50)).connect_lazy();
    for channel in [unknown, silent] {
        let outcome = say(&retrying(1), &channel, ONCE).await;
        assert_eq!((outcome.verdict(), outcome.label()), (Verdict::unreached(), "grpc_connect"), "{outcome:?}");
    }

    let script = Script::default();
    let (retrying, channel) = (retrying(20), channel(address));
    let late = async {
        sleep(ms(30)).await;
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        drop(tokio::spawn(axum::serve(listener, script.routes()).into_future()));
    };
    let (outcome, ()) = tokio::join!(say(&retrying, &channel, ONCE), late);
    assert_eq!(outcome.result.unwrap(), "hello");
    let seen = script.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].previous.is_some());
}

#[tokio::test]
async fn a_connection_that_is_reset_in_mid_call_is_transient_and_may_have_been_heard() {
    let script = Script::default();
    let server = script.serve().await;
    let channel = channel(server.address);
    assert_eq!(say(&retrying(1), &channel, ONCE).await.result.unwrap(), "hello");
    script.is([Answer::Resets]);
    let outcome = say(&retrying(3), &channel, ONCE).await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::transient(), "grpc_connection"), "{outcome:?}");
    assert_eq!(script.seen().len(), 2);

    script.is([Answer::Resets]);
    assert_eq!(say(&retrying(3), &channel, CallOptions::new()).await.result.unwrap(), "hello");
}

#[tokio::test]
async fn a_server_that_is_killed_in_mid_call_is_transient_and_called_again_once_it_is_back() {
    let script = Script::default();
    let mut server = script.serve().await;
    let channel = channel(server.address);
    script.is([Answer::Hangs]);
    let (one, retrying) = (retrying(1), retrying(20));
    let killed = async {
        while script.running.load(SeqCst) == 0 {
            sleep(ms(1)).await;
        }
        server.kill().await;
    };
    let (outcome, ()) = tokio::join!(say(&one, &channel, ONCE), killed);
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::transient(), "grpc_connection"), "{outcome:?}");
    drop(outcome);

    // Between its end and the next beginning it is not reached, whatever tonic makes of that.
    for _ in 0..5 {
        let outcome = say(&one, &channel, ONCE).await;
        assert!(matches!(outcome.verdict(), Verdict::Unreached { .. }), "{outcome:?}");
    }
    let back = async {
        sleep(ms(30)).await;
        server.start_anew().await;
    };
    let (outcome, ()) = tokio::join!(say(&retrying, &channel, ONCE), back);
    assert_eq!(outcome.result.unwrap(), "hello");
}

#[tokio::test]
async fn what_the_caller_cancels_or_cannot_send_is_held_against_nobody() {
    let script = Script::default();
    let server = script.serve().await;
    let client = EchoClient::new(channel(server.address));

    // Larger than the client may send.
    let small = client.clone().max_encoding_message_size(4);
    let outcome = retrying(3)
        .outcome_with(CallOptions::new(), |attempt| {
            let (mut client, request) = (small.clone(), request(Bytes::from("hello"), attempt));
            async move { client.say(request).await }
        })
        .await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::ignored(), "grpc_request"), "{outcome:?}");

    // Cancelled by its handle, while the request goes on for ever.
    let outcome = retrying(3)
        .outcome_with(CallOptions::new(), |attempt| {
            let mut request: Request<tokio_stream::Pending<Bytes>> = request(tokio_stream::pending(), attempt);
            let (mut client, handle) = (client.clone(), request.cancellation_handle());
            async move {
                let cancelled = async {
                    sleep(ms(50)).await;
                    handle.cancel();
                };
                tokio::join!(client.say_all(request), cancelled).0
            }
        })
        .await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::ignored(), "grpc_request"), "{outcome:?}");
}
