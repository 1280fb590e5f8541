//! Many hosts, of which some are bad.

use std::{collections::HashSet, net::TcpListener};

use withstand::{Instance, Reason, reqwest::Client};

use super::{
    OK, UNAVAILABLE, ms, outbound,
    upstream::{answering, answering_on},
};

#[tokio::test]
async fn a_bad_host_does_no_harm_to_a_good_one() {
    let (bad, good) = (answering(|_| async { UNAVAILABLE }).await, answering(|_| async { OK }).await);
    let client = outbound().build().unwrap();
    for _ in 0..10 {
        drop(client.get(bad.url()).send().await);
        assert_eq!(client.get(good.url()).send().await.unwrap().status(), OK);
    }
    let error = client.get(bad.url()).send().await.unwrap_err();
    assert_eq!(error.rejection().unwrap().reason(), Reason::CircuitOpen);
    // Four failures opened the circuit, and nobody asked again.
    assert_eq!((bad.count(), good.count()), (4, 10));
    assert_eq!(client.hosts().len(), 2);
}

#[tokio::test]
async fn the_key_is_scheme_host_and_port() {
    let upstream = answering(|_| async { OK }).await;
    let port = upstream.address.port();
    let client = outbound().build().unwrap();
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "user:secret@localhost"] {
        let url = format!("http://{host}:{port}/a?b#c");
        assert_eq!(client.get(&url).send().await.unwrap().status(), OK, "{url}");
    }
    let hosts = client.hosts().instances();
    let hosts: HashSet<_> = hosts.iter().filter_map(Instance::key).map(ToString::to_string).collect();
    assert_eq!(hosts, HashSet::from([format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}")]));
}

#[tokio::test]
async fn a_thousand_hosts_stay_within_the_capacity() {
    // All of 127.0.0.0/8 is this machine.
    let upstream = answering_on("0.0.0.0:0", |_| async { OK }).await;
    let port = upstream.address.port();
    let client = outbound().capacity(50).build().unwrap();
    for host in 0..1000 {
        let url = format!("http://127.0.{}.{}:{port}/", host / 250, host % 250 + 1);
        assert_eq!(client.get(&url).send().await.unwrap().status(), OK, "{url}");
        assert!(client.hosts().len() <= 50);
    }
    assert_eq!((upstream.count(), client.hosts().len()), (1000, 50));
}

#[tokio::test]
async fn a_flood_of_hosts_makes_nobody_forget_that_one_is_down() {
    let down = answering(|_| async { UNAVAILABLE }).await;
    let upstream = answering_on("0.0.0.0:0", |_| async { OK }).await;
    let client = outbound().capacity(5).build().unwrap();
    for _ in 0..2 {
        drop(client.get(down.url()).send().await);
    }
    for host in 1..100 {
        client.get(format!("http://127.0.0.{host}:{}/", upstream.address.port())).send().await.unwrap();
    }
    assert!(client.get(down.url()).send().await.unwrap_err().is_rejected());
    assert_eq!(down.count(), 4);
}

#[tokio::test]
async fn the_standard_client_is_made_in_one_line() {
    let upstream = answering(|number| async move { if number == 1 { UNAVAILABLE } else { OK } }).await;
    let client = Client::new("outbound", reqwest::Client::new()).unwrap();
    assert_eq!(client.get(upstream.url()).send().await.unwrap().status(), OK);
    let standard = withstand::Pipeline::standard("outbound").build().unwrap();
    let layers = |plan: &withstand::Plan| plan.to_string().lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let host = client.hosts().instances().swap_remove(0);
    assert_eq!(host.name().as_str(), "outbound");
    assert_eq!(layers(&host.explain())[..5], layers(&standard.explain())[..5]);
}

#[test]
fn nonsense_is_refused_by_name() {
    let refused = |build: fn(
        withstand::reqwest::ClientBuilder<super::Layers>,
    ) -> withstand::reqwest::ClientBuilder<super::Layers>| {
        build(outbound()).build().unwrap_err().to_string()
    };
    assert_eq!(
        refused(|client| client.deadline_header("no header")),
        "pipeline `outbound`: deadline_header is \"no header\"; accepted: the name of an HTTP header",
    );
    assert!(refused(|client| client.capacity(0)).contains("capacity is 0"));
    assert!(refused(|client| client.idle_after(ms(0))).contains("idle_after is 0"));
    assert!(Client::new(" ", reqwest::Client::new()).is_err());
    drop(TcpListener::bind("127.0.0.1:0"));
}
