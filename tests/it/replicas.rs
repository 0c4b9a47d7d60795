//! Several replicas as one: sessions that outlive the replica they began at, and what replicas ask each other.

use std::path::Path;

use serde_json::json;
use tokio::net::TcpStream;
use tollgate::control::internal::Listing;
use tollgate::control::peers::{Peer, Peers};

use crate::support::{
    Authority, Balancer, Builder, Caller, Folder, Gateway, Leaf, Session, Upstream, dial_tls, eventually,
    within,
};

#[tokio::test]
async fn replicas_with_certificates_for_one_name_are_found_by_their_own() {
    let (up, shared, authority) = (Upstream::legacy().await, Folder::new(), Authority::new());
    let (cert, key) = authority.write("a", &authority.issue("tollgate-replica"));
    let gateway = replica(&up, &shared)
        .listeners(&format!(
            "internal: {{ address: 127.0.0.1:0, tls: {{ cert: \"{}\", key: \"{}\", ca: \"{}\" }} }}",
            cert.display(),
            key.display(),
            authority.file().display()
        ))
        .start()
        .await;
    let (_, port) = gateway.process().internal_address().unwrap().rsplit_once(':').unwrap();
    let by = |host: &str| Peer {
        boot: host.to_owned(),
        replica: host.to_owned(),
        address: format!("{host}:{port}"),
    };
    let leaf = authority.issue("tollgate-replica");
    let (ca, name) = (std::fs::read(authority.file()).unwrap(), Some("tollgate-replica".to_owned()));
    let (cert, key) = (leaf.certificate.pem(), leaf.key.serialize_pem());
    let asking = Peers::new(cert.as_bytes(), key.as_bytes(), &ca, name).unwrap();
    let answers = asking.health(&[by("localhost"), by("127.0.0.1")]).await;
    assert_eq!(answers.answers.len(), 2, "by a host name and by an address: {:?}", answers.missing);
    let nobody = Peers::new(cert.as_bytes(), key.as_bytes(), &ca, Some("another".to_owned())).unwrap();
    assert_eq!(
        nobody.health(&[by("localhost")]).await.answers.len(),
        0,
        "the certificate is for another name"
    );
}

fn replica(up: &Upstream, shared: &Folder) -> Builder {
    let keys = shared.path().join("session.keys");
    Gateway::relay(&[up])
        .server("era: legacy")
        .more(&format!("sessions: {{ key_file: \"{}\" }}", keys.display()))
}

/// A replica with an internal listener whose certificate is for `127.0.0.1`.
fn with_internal(up: &Upstream, shared: &Folder, authority: &Authority, name: &str) -> Builder {
    let (cert, key) = authority.write(name, &authority.issue("127.0.0.1"));
    let (cert, key, ca) = (cert.display(), key.display(), authority.file());
    replica(up, shared).listeners(&format!(
        "internal: {{ address: 127.0.0.1:0, tls: {{ cert: \"{cert}\", key: \"{key}\", ca: \"{}\" }} }}",
        ca.display()
    ))
}

fn peer(gateway: &Gateway) -> Peer {
    let address = gateway.process().internal_address().expect("it has an internal listener");
    Peer { boot: address.to_owned(), replica: address.to_owned(), address: address.to_owned() }
}

fn peers(authority: &Authority, leaf: &Leaf) -> Peers {
    let ca = std::fs::read(authority.file()).unwrap();
    let (cert, key) = (leaf.certificate.pem(), leaf.key.serialize_pem());
    Peers::new(cert.as_bytes(), key.as_bytes(), &ca, None).unwrap()
}

/// The same session, spoken to another replica.
fn at(session: &Session, gateway: &Gateway) -> Session {
    session.moved_to(gateway.mcp)
}

async fn call(session: &Session) -> u16 {
    session.ask(&session.tool("get_time")).await.status()
}

#[tokio::test]
async fn a_session_outlives_the_replica_it_began_at() {
    let (up, shared) = (Upstream::legacy().await, Folder::new());
    let first = replica(&up, &shared).start().await;
    let second = replica(&up, &shared).start().await;
    let balancer = Balancer::start(vec![first.mcp, second.mcp]).await;
    let session = Caller::new(balancer.address, "/mcp/s").initialize().await;
    let level = json!({ "level": "warning" });
    assert_eq!(session.ask(&session.call("logging/setLevel", level)).await.status(), 200);
    assert_eq!(call(&session).await, 200);
    // As with kill -9: what is open breaks, and nobody says good-bye.
    let gone = first.mcp;
    drop(first);
    eventually("the first replica is gone", async || TcpStream::connect(gone).await.err()).await;
    for _ in 0..3 {
        assert_eq!(call(&session).await, 200, "the next request on the same id, at the other replica");
    }
    assert_eq!(up.count("initialize"), 1, "the server sees one session all along");
    assert_eq!(session.ask(&session.delete()).await.status(), 204);
    assert_eq!(call(&session).await, 404);
}

#[tokio::test]
async fn replicas_list_and_close_each_others_sessions_and_streams() {
    let (up, shared, authority) = (Upstream::legacy().await, Folder::new(), Authority::new());
    let a = with_internal(&up, &shared, &authority, "a").start().await;
    let b = with_internal(&up, &shared, &authority, "b").start().await;
    let all = [peer(&a), peer(&b)];
    let asking = peers(&authority, &authority.issue("127.0.0.1"));
    let (at_a, at_b) = (a.caller().initialize().await, b.caller().initialize().await);

    let health = asking.health(&all).await;
    assert_eq!((health.answers.len(), health.missing.len()), (2, 0), "{:?}", health.missing);
    let listed = asking.sessions(&all, &Listing::default()).await;
    let serials: Vec<String> =
        listed.answers.iter().flat_map(|(_, s)| s.iter().map(|s| s.serial.clone())).collect();
    assert_eq!(serials.len(), 2);
    let none = asking.sessions(&all, &Listing { tenant: Some("other".into()), ..Listing::default() }).await;
    assert!(none.answers.iter().all(|(_, sessions)| sessions.is_empty()));

    // A stream at b: ended through its number, politely.
    let (mut stream, head) = at_b.caller.stream(&at_b.get()).await;
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let streams = asking.streams(&all, &Listing::default()).await;
    let (home, found) = streams.answers.iter().find(|(_, s)| !s.is_empty()).expect("the stream is listed");
    assert_eq!((home, found.len(), found[0].tenant.as_str()), (&all[1], 1, "default"));
    let foreign = asking.close_stream(home, "other", found[0].id).await;
    assert!(!foreign.answers[0].1, "another tenant's stream is not there");
    assert!(asking.close_stream(home, "default", found[0].id).await.answers[0].1);
    let (_, whole) = stream.rest_of_body().await;
    assert!(whole, "the response has its proper end");
    assert_eq!(call(&at_b).await, 200, "the session goes on");

    // a's session, closed: it is over on both replicas.
    let home = peer(&a);
    let (_, of_a) = listed.answers.iter().find(|(peer, _)| *peer == home).expect("a has answered");
    let serial = of_a[0].serial.clone();
    let closed = asking.close_session(&all, "default", &serial).await;
    assert_eq!(closed.answers.iter().filter(|(_, found)| found.is_some()).count(), 1);
    assert_eq!(call(&at_a).await, 404);
    assert_eq!(call(&at(&at_a, &b)).await, 404, "and does not come back elsewhere");
    assert_eq!(call(&at_b).await, 200);

    // One that does not answer is named, and holds nobody up.
    let gone = Peer { boot: "gone".into(), replica: "gone".into(), address: "127.0.0.1:1".into() };
    let partly = asking.sessions(&[all[0].clone(), gone.clone()], &Listing::default()).await;
    assert_eq!((partly.answers.len(), partly.missing[0].0.clone()), (1, gone));
}

#[tokio::test]
async fn only_replicas_are_answered_by_the_internal_listener() {
    let (up, shared, authority) = (Upstream::legacy().await, Folder::new(), Authority::new());
    let gateway = with_internal(&up, &shared, &authority, "a").start().await;
    let address = gateway.process().internal_address().unwrap().parse().unwrap();
    let stranger = Authority::new();
    let request = b"GET /internal/v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (who, identity) in [("nobody", None), ("a stranger", Some(stranger.issue("127.0.0.1")))] {
        let config = authority.client(&[], identity.as_ref());
        // In TLS 1.3 the client may believe in the handshake until it reads.
        let answer = match dial_tls(address, "127.0.0.1", config).await {
            Ok(mut stream) => {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let _ = stream.write_all(request).await;
                let mut text = Vec::new();
                let _ = within("the end", stream.read_to_end(&mut text)).await;
                text
            }
            Err(_) => Vec::new(),
        };
        assert!(answer.is_empty(), "{who} is answered: {}", String::from_utf8_lossy(&answer));
    }
    // A replica whose certificate is for another name than it is dialled by is not believed.
    let (cert, key) = authority.write("wrong", &authority.issue("10.9.8.7"));
    let wrong = replica(&up, &shared)
        .listeners(&format!(
            "internal: {{ address: 127.0.0.1:0, tls: {{ cert: \"{}\", key: \"{}\", ca: \"{}\" }} }}",
            Path::new(&cert).display(),
            key.display(),
            authority.file().display()
        ))
        .start()
        .await;
    let asking = peers(&authority, &authority.issue("127.0.0.1"));
    let answers = asking.health(&[peer(&gateway), peer(&wrong)]).await;
    assert_eq!((answers.answers.len(), answers.missing.len()), (1, 1));
}
