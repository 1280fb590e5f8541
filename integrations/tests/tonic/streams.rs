//! Streams of messages, whose status comes at their end.

use bytes::Bytes;
use tonic::{Code, Response, Status, Streaming};
use withstand::{Attempt, CallOptions, Verdict, tonic::request};

use crate::{
    echo::EchoClient,
    world::{Answer, Script, channel, retrying},
};

async fn read(mut stream: Streaming<Bytes>) -> Result<Vec<Bytes>, Status> {
    let mut all = Vec::new();
    while let Some(message) = stream.message().await? {
        all.push(message);
    }
    Ok(all)
}

#[tokio::test]
async fn a_call_sees_the_status_of_a_stream_only_if_it_reads_it() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    let client = EchoClient::new(channel(address));
    let breaks = || Answer::Streams(vec!["one", "two"], Status::unavailable("in the middle"));

    // The head is there, and that was the call.
    script.is([breaks()]);
    let begin = |attempt: Attempt| {
        let (mut client, request) = (client.clone(), request(Bytes::from("all"), attempt));
        async move { client.list(request).await.map(Response::into_inner) }
    };
    let outcome = retrying(3).outcome_with(CallOptions::new(), begin).await;
    assert_eq!(outcome.verdict(), Verdict::success());
    let mut stream = outcome.result.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap(), "one");
    assert_eq!(read(stream).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(script.seen().len(), 1);

    // Read within the call it is an attempt that has failed, and there is another one.
    script.is([breaks()]);
    let all = retrying(3)
        .outcome_with(CallOptions::new(), |attempt| {
            let begun = begin(attempt);
            async move { read(begun.await?).await }
        })
        .await;
    assert_eq!(all.result.unwrap(), ["all"]);
    assert_eq!(script.seen().len(), 2);

    // A status before the first message is seen in any case.
    script.is([Answer::Fails(Status::unavailable("at the beginning"))]);
    let outcome = retrying(1).outcome_with(CallOptions::new(), begin).await;
    assert_eq!(outcome.verdict(), Verdict::transient());
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_stream_is_transient_if_it_is_read_within_the_call() {
    let script = Script::default();
    let server = script.serve().await;
    let client = EchoClient::new(channel(server.address));
    let all = async |attempts| {
        script.is([Answer::BreaksOff(vec!["one", "two"])]);
        retrying(attempts)
            .outcome_with(CallOptions::new(), |attempt| {
                let (mut client, request) = (client.clone(), request(Bytes::from("all"), attempt));
                async move { read(client.list(request).await?.into_inner()).await }
            })
            .await
    };
    let outcome = all(1).await;
    assert_eq!((outcome.verdict(), outcome.label()), (Verdict::transient(), "grpc_connection"), "{outcome:?}");
    assert_eq!(all(3).await.result.unwrap(), ["all"]);
}

#[tokio::test]
async fn pushback_in_the_trailers_of_a_stream_that_is_read_within_the_call_is_heeded() {
    let script = Script::default();
    let (address, _server) = script.serve_by_tonic(None).await;
    let client = EchoClient::new(channel(address));
    for (pushback, attempts) in [("1", 2), ("-1", 1)] {
        let mut status = Status::resource_exhausted("no more");
        status.metadata_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
        script.is([Answer::Streams(vec!["one"], status)]);
        let _ = retrying(3)
            .outcome_with(CallOptions::new(), |attempt| {
                let (mut client, request) = (client.clone(), request(Bytes::from("all"), attempt));
                async move { read(client.list(request).await?.into_inner()).await }
            })
            .await;
        assert_eq!(script.seen().len(), attempts, "{pushback}");
    }
}
