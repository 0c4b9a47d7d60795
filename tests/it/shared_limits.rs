//! Limits that two gateways share through a real server.

use std::time::{Duration, Instant};

use crate::support::{Authority, Gateway, Upstream, Valkey, eventually};

/// Two gateways with the same limits and the same server for them.
async fn replicas(up: &Upstream, route: &str, limits: &str, section: &str) -> [Gateway; 2] {
    let mut made = Vec::new();
    for _ in 0..2 {
        let gateway = Gateway::relay(&[up])
            .server("era: modern")
            .route(&format!("limits: [{route}]"))
            .more(&format!("limits:\n{limits}\n{section}"))
            .start()
            .await;
        connected(&gateway).await;
        made.push(gateway);
    }
    made.try_into().unwrap_or_else(|_| unreachable!("two were made"))
}

async fn connected(gateway: &Gateway) {
    eventually("a connection to the shared server", async || {
        (gateway.metric("tollgate_limit_server_up", &[]).await == 1.0).then_some(())
    })
    .await;
}

async fn status(gateway: &Gateway, tool: &str) -> u16 {
    let caller = gateway.caller();
    caller.ask(&caller.tool(tool)).await.status()
}

#[tokio::test]
async fn two_replicas_grant_together_what_one_would() {
    let (up, valkey) = (Upstream::modern().await, Valkey::start().await);
    let limit = "  - { name: five, key: principal, rate: 5/h, backend: valkey, fail: closed }";
    let [a, b] = replicas(&up, "five", limit, &valkey.section()).await;
    let mut granted = 0;
    for n in 0..10 {
        granted += u32::from(status(if n % 2 == 0 { &a } else { &b }, "get_time").await == 200);
    }
    assert_eq!(granted, 5);
    assert_eq!(up.count("tools/call"), 5);
    let caller = b.caller();
    let refused = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("ratelimit-policy"), Some("\"five\";q=5;w=3600"));
    let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((700..=720).contains(&retry), "a token comes back every 720 s, not in {retry}");
    let headers = refused.header("ratelimit").unwrap();
    assert!(headers.starts_with("\"five\";r=0;t=35") || headers.ends_with("t=3600"), "{headers}");
    assert_eq!(b.metric("tollgate_limit_fallbacks_total", &[]).await, 0.0);
}

#[tokio::test]
async fn what_one_limit_refuses_costs_the_others_nothing_wherever_they_are() {
    let (up, valkey) = (Upstream::modern().await, Valkey::start().await);
    let limits = "  - { name: all, key: principal, rate: 3/h, backend: valkey }\n  \
                  - { name: each, key: [principal, tool], rate: 1/h, backend: valkey }\n  \
                  - { name: here, key: principal, rate: 4/h }";
    let [a, b] = replicas(&up, "all, each, here", limits, &valkey.section()).await;
    assert_eq!(status(&a, "a").await, 200);
    for gateway in [&a, &b, &a, &b] {
        assert_eq!(status(gateway, "a").await, 429, "`each` refuses everywhere");
    }
    assert_eq!(status(&b, "b").await, 200, "and `all` has lost nothing to it");
    assert_eq!(status(&a, "c").await, 200);
    assert_eq!(status(&b, "d").await, 429, "now `all` refuses");
}

#[tokio::test]
async fn replicas_that_are_hammered_use_up_the_rate_and_no_more() {
    let (up, valkey) = (Upstream::modern().await, Valkey::start().await);
    let limit = "  - { name: fast, key: principal, rate: 100/s, burst: 0.2, backend: valkey, fail: closed }";
    let gateways = replicas(&up, "fast", limit, &valkey.section()).await;
    let began = Instant::now();
    let work = gateways.iter().flat_map(|gateway| {
        (0..4).map(move |_| async move {
            let (caller, mut client) = (gateway.caller(), gateway.connect().await);
            let mut granted = 0;
            while began.elapsed() < Duration::from_secs(3) {
                granted += u32::from(client.ask(&caller.tool("get_time")).await.status() == 200);
            }
            granted
        })
    });
    let granted: u32 = futures::future::join_all(work).await.into_iter().sum();
    let most = 20.0 + 100.0 * began.elapsed().as_secs_f64();
    assert!(f64::from(granted) <= most, "{granted} of at most {most}");
    assert!(f64::from(granted) >= 0.9 * 300.0, "{granted}");
    let mut trips = 0.0;
    for gateway in &gateways {
        trips += gateway.metric("tollgate_limit_trips_total", &["outcome=\"ok\""]).await;
    }
    assert!(trips <= 2.0 * f64::from(granted), "{trips} trips for {granted} calls");
}

#[tokio::test]
async fn without_the_server_each_limit_does_what_it_says_and_recovers_by_itself() {
    let (up, mut valkey) = (Upstream::modern().await, Valkey::start().await);
    for (fail, during) in [("closed", [429, 429, 429]), ("local", [200, 200, 429]), ("open", [200, 200, 200])]
    {
        valkey.restart().await;
        let limit =
            format!("  - {{ name: two, key: [principal, tool], rate: 2/h, backend: valkey, fail: {fail} }}");
        let [a, b] = replicas(&up, "two", &limit, &valkey.section()).await;
        assert_eq!(status(&a, "before").await, 200, "{fail}");
        valkey.kill();
        for (n, expected) in during.into_iter().enumerate() {
            assert_eq!(status(&a, "during").await, expected, "{fail}, call {n}");
        }
        assert!(a.metric("tollgate_limit_fallbacks_total", &["limit=\"two\""]).await >= 2.0, "{fail}");
        for gateway in [&a, &b] {
            eventually("the outage is seen", async || {
                (gateway.metric("tollgate_limit_server_up", &[]).await == 0.0).then_some(())
            })
            .await;
        }
        if fail == "closed" {
            let caller = a.caller();
            assert_eq!(caller.ask(&caller.tool("during")).await.header("retry-after"), Some("1"));
        }
        valkey.restart().await;
        for gateway in [&a, &b] {
            connected(gateway).await;
        }
        // A key that failed is left alone for a moment.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let mut granted = 0;
        for n in 0..6 {
            granted += u32::from(status(if n % 2 == 0 { &a } else { &b }, "after").await == 200);
        }
        assert_eq!(granted, 2, "{fail}: counted together again");
    }
}

#[tokio::test]
async fn keys_are_spread_over_a_cluster() {
    let (up, nodes) = (Upstream::modern().await, Valkey::cluster().await);
    let section =
        format!("valkey: {{ cluster: true, urls: [\"{}\", \"{}\"] }}", nodes[0].url(), nodes[1].url());
    let limit = "  - { name: once, key: [principal, tool], rate: 1/h, backend: valkey, fail: closed }";
    let [a, b] = replicas(&up, "once", limit, &section).await;
    for n in 0..20 {
        let tool = format!("tool_{n}");
        let (first, second) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        assert_eq!(status(first, &tool).await, 200, "{tool}");
        assert_eq!(status(second, &tool).await, 429, "{tool}");
    }
    for node in &nodes {
        let keys = format!("{:?}", node.command(&["DBSIZE"]).await);
        assert_ne!(keys, "int(0)", "every node has some of the keys");
    }
}

#[tokio::test]
async fn the_server_is_known_by_its_certificate_and_knows_the_gateway_by_its_login() {
    let (up, authority, stranger) = (Upstream::modern().await, Authority::new(), Authority::new());
    let valkey = Valkey::guarded(&authority, "s3cret").await;
    let section = |ca: &Authority, password: &str| {
        format!(
            "valkey: {{ urls: [\"{}\"], ca: \"{}\", username: gate, password: \"${{env:{password}}}\" }}",
            valkey.url(),
            ca.file().display()
        )
    };
    let limit = "limits:\n  - { name: one, key: principal, rate: 1/h, backend: valkey, fail: closed }\n";
    let start = async |section: String| {
        let gateway = Gateway::relay(&[&up]).server("era: modern").route("limits: [one]");
        gateway.more(&format!("{limit}{section}")).env("GOOD", "s3cret").env("BAD", "guessed").start().await
    };
    let good = start(section(&authority, "GOOD")).await;
    connected(&good).await;
    assert_eq!(status(&good, "get_time").await, 200);
    assert_eq!(status(&good, "get_time").await, 429);
    for (why, section) in [
        ("a stranger's certificate", section(&stranger, "GOOD")),
        ("a wrong login", section(&authority, "BAD")),
    ] {
        let gateway = start(section).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(gateway.metric("tollgate_limit_server_up", &[]).await, 0.0, "{why}");
        assert_eq!(status(&gateway, "get_time").await, 429, "{why}: `fail: closed`");
    }
}
