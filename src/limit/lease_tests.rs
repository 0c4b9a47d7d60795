//! Virtual time: replicas with clocks of their own, a shared bucket, a network that takes its time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// The server's clock at true time zero, in microseconds: as large as real ones.
const EPOCH_US: u64 = 1_800_000_000_000_000;

/// What the script on the server does.
#[derive(Default, Debug)]
struct Server {
    arrival_us: u64,
}

impl Server {
    fn grant(&mut self, now: u64, ask: &Ask) -> Grant {
        let now_us = EPOCH_US + now / 1_000;
        let from_us = self.arrival_us.max(now_us).min(now_us + ask.fill_us);
        let room = (now_us + ask.fill_us - from_us) * 1_000 / ask.token_ns;
        let n = ask.want.max(room / ask.share).min(room);
        let n = if n < ask.least { 0 } else { n };
        let to_us = from_us + (n * ask.token_ns).div_ceil(1_000);
        self.arrival_us = if n > 0 { to_us } else { self.arrival_us };
        Grant { now_us, from_us, to_us }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call {
        replica: usize,
        cost: u64,
    },
    /// The script runs.
    Arrives {
        replica: usize,
        ask: usize,
        life: u32,
    },
    Returns {
        replica: usize,
        ask: usize,
        life: u32,
    },
    Crash {
        replica: usize,
    },
}

#[derive(Debug)]
struct Replica {
    held: Held,
    /// Added to true time, and by how many millionths the clock runs fast.
    offset: u64,
    drift: i64,
    waiting: Vec<(u64, u32)>,
    life: u32,
}

impl Replica {
    fn clock(&self, now: u64) -> u64 {
        (self.offset + now).saturating_add_signed(now as i64 / 1_000_000 * self.drift)
    }
}

#[derive(Debug)]
struct World {
    rate: Rate,
    server: Server,
    replicas: Vec<Replica>,
    /// What was asked, when by the replica's clock, and what came of it.
    asks: Vec<(Ask, u64, Option<Grant>)>,
    events: BinaryHeap<Reverse<(u64, usize, Event)>>,
    serial: usize,
    /// From a replica to the server and from there back.
    delay: [u64; 2],
    granted: Vec<(u64, u64)>,
    refused: u64,
    trips: u64,
}

impl World {
    fn new(rate: Rate, drifts: &[i64], delay: [u64; 2]) -> Self {
        let replicas = drifts.iter().enumerate().map(|(i, drift)| Replica {
            held: Held::default(),
            offset: (i as u64 + 1) * 1_234 * SECOND,
            drift: *drift,
            waiting: Vec::new(),
            life: 0,
        });
        Self {
            rate,
            server: Server::default(),
            replicas: replicas.collect(),
            asks: Vec::new(),
            events: BinaryHeap::new(),
            serial: 0,
            delay,
            granted: Vec::new(),
            refused: 0,
            trips: 0,
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((time, self.serial, event)));
    }

    fn run(&mut self, until: u64) {
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            if now > until {
                break;
            }
            match event {
                Event::Call { replica, cost } => self.call(now, replica, cost, 0),
                Event::Arrives { replica, ask, life } => {
                    let grant = self.server.grant(now, &self.asks[ask].0);
                    self.asks[ask].2 = Some(grant);
                    self.at(now + self.delay[1], Event::Returns { replica, ask, life });
                }
                Event::Returns { replica, ask, life } => {
                    let (asked, sent, grant) = self.asks[ask];
                    let this = &mut self.replicas[replica];
                    if this.life != life {
                        continue;
                    }
                    let received = this.clock(now);
                    this.held.land(sent, received, &asked, &grant.unwrap());
                    for (cost, round) in std::mem::take(&mut self.replicas[replica].waiting) {
                        self.call(now, replica, cost, round + 1);
                    }
                }
                Event::Crash { replica } => {
                    let this = &mut self.replicas[replica];
                    this.held = Held::default();
                    this.waiting.clear();
                    this.life += 1;
                }
            }
        }
    }

    fn call(&mut self, now: u64, replica: usize, cost: u64, round: u32) {
        let this = &mut self.replicas[replica];
        let (clock, cost_ns) = (this.clock(now), cost * self.rate.token_ns());
        match this.held.judge(clock, &self.rate, cost_ns) {
            Verdict::Ready => {
                this.held.spend(clock, cost_ns);
                self.granted.push((now, cost));
                if this.held.runs_low(clock) {
                    self.ask(now, replica, 0);
                }
            }
            Verdict::Refused(wait) => {
                assert!(wait > 0);
                self.refused += 1;
            }
            Verdict::Starved if round > 3 => self.refused += 1,
            Verdict::Starved => {
                this.waiting.push((cost, round));
                self.ask(now, replica, cost_ns);
            }
        }
    }

    fn ask(&mut self, now: u64, replica: usize, cost_ns: u64) {
        let this = &mut self.replicas[replica];
        let clock = this.clock(now);
        let life = this.life;
        if let Some(ask) = this.held.begin(clock, &self.rate, cost_ns) {
            self.trips += 1;
            self.asks.push((ask, clock, None));
            let ask = self.asks.len() - 1;
            self.at(now + self.delay[0], Event::Arrives { replica, ask, life });
        }
    }

    fn tokens(&self) -> u64 {
        self.granted.iter().map(|(_, cost)| cost).sum()
    }

    /// In every stretch of time at most the burst and the rate, with `slack` more of time.
    fn check(&self, slack: u64) -> Result<(), TestCaseError> {
        // With `level` as a leaky bucket: the exact test for all stretches at once.
        let (mut level, mut last) = (0u128, 0u64);
        let most = u128::from(self.rate.burst()) * u128::from(self.rate.token_ns()) + u128::from(slack);
        for (at, cost) in &self.granted {
            level = level.saturating_sub(u128::from(at - last));
            last = *at;
            level += u128::from(cost * self.rate.token_ns());
            prop_assert!(level <= most, "{level} ns of tokens at {at}, at most {most}");
        }
        Ok(())
    }
}

fn rate(count: u64, per: Duration, burst: u64) -> Rate {
    Rate::new(count, per, burst).unwrap()
}

fn per_minute(count: u64) -> Rate {
    rate(count, Duration::from_secs(60), count)
}

/// Every replica is called `per_second` times.
fn hammer(world: &mut World, per_second: u64, seconds: u64) {
    for replica in 0..world.replicas.len() {
        for i in 0..per_second * seconds {
            world.at(i * SECOND / per_second + 7 * replica as u64, Event::Call { replica, cost: 1 });
        }
    }
    world.run(u64::MAX);
}

#[test]
fn two_hammered_replicas_share_all_of_the_rate_and_no_more() {
    for (count, per_second) in [(60, 50), (1_000, 200), (60_000, 2_000)] {
        let minutes = if count > 10_000 { 1 } else { 5 };
        let mut world = World::new(per_minute(count), &[0, 40], [MS / 4, MS / 4]);
        hammer(&mut world, per_second, minutes * 60);
        let (bound, got) = (count * minutes + count, world.tokens());
        assert!(got <= bound, "{count}/min: {got} of at most {bound}");
        assert!(got * 100 >= bound * 98, "{count}/min: {got} of {bound}");
        world.check(MS).unwrap();
    }
}

#[test]
fn what_one_replica_leaves_the_other_gets() {
    // Both in turn, a second each; and one that stops for good.
    let mut world = World::new(per_minute(1_000), &[0, 0], [MS / 4, MS / 4]);
    for i in 0..300 * 200 {
        let time = i * SECOND / 200;
        world.at(time, Event::Call { replica: (time / SECOND % 2) as usize, cost: 1 });
    }
    world.run(u64::MAX);
    let got = world.tokens();
    assert!(got <= 6_000 && got * 100 >= 6_000 * 98, "{got}");
}

#[test]
fn a_slow_key_takes_one_token_at_a_time_and_a_full_bucket_all_of_its_burst() {
    let mut world = World::new(rate(1, Duration::from_secs(60), 3), &[0, 0], [MS, MS]);
    for replica in [0, 1, 0, 1, 0, 1] {
        world.at(replica as u64, Event::Call { replica, cost: 1 });
    }
    world.run(u64::MAX);
    assert_eq!(
        (world.tokens(), world.refused),
        (3, 3),
        "three are in the bucket, wherever they are asked for"
    );
    // A minute later there is one more, for whoever comes first.
    for (after, replica) in [(59_000 * MS, 1), (60_010 * MS, 1), (60_020 * MS, 0)] {
        world.at(after, Event::Call { replica, cost: 1 });
    }
    world.run(u64::MAX);
    assert_eq!(world.tokens(), 4);
}

#[test]
fn warm_calls_make_no_trip_and_refused_ones_neither() {
    // Far below the rate.
    let mut world = World::new(per_minute(60_000), &[0], [MS / 4, MS / 4]);
    hammer(&mut world, 500, 10);
    assert_eq!(world.tokens(), 5_000);
    assert!(world.trips < 250, "{} trips", world.trips);
    // Far above it: about one trip per token that comes in.
    let mut world = World::new(rate(1, Duration::from_secs(1), 1), &[0], [MS / 4, MS / 4]);
    hammer(&mut world, 1_000, 20);
    assert!((19..=20).contains(&world.tokens()), "{}", world.tokens());
    assert!(world.trips <= 60, "{} trips for {} refusals", world.trips, world.refused);
}

#[test]
fn a_refusal_says_when_there_will_be_a_token() {
    let mut world = World::new(rate(1, Duration::from_secs(10), 2), &[0], [0, 0]);
    for _ in 0..2 {
        world.at(0, Event::Call { replica: 0, cost: 1 });
    }
    world.run(u64::MAX);
    let rate = world.rate;
    let replica = &mut world.replicas[0];
    let clock = replica.clock(4 * SECOND);
    let Verdict::Refused(wait) = replica.held.judge(clock, &rate, rate.token_ns()) else {
        panic!("two are gone")
    };
    assert!(wait.abs_diff(6 * SECOND) <= 5 * MS, "{wait}");
    assert!(replica.held.debt(clock).abs_diff(16 * SECOND) <= 5 * MS);
}

#[test]
fn those_who_come_during_a_trip_wait_for_it() {
    let rate = per_minute(600);
    let mut held = Held::default();
    let token = rate.token_ns();
    assert_eq!(held.judge(5, &rate, token), Verdict::Starved);
    let ask = held.begin(5, &rate, token).expect("the first goes");
    assert_eq!(held.begin(6, &rate, token), None);
    assert_eq!(held.begin(7, &rate, token), None);
    let grant = Server::default().grant(MS, &Ask { want: 3, ..ask });
    held.land(5, 5 + 2 * MS, &ask, &grant);
    for _ in 0..3 {
        assert_eq!(held.judge(5 + 40 * MS, &rate, token), Verdict::Ready, "kept for who waited");
        held.spend(5 + 40 * MS, token);
    }
}

#[test]
fn what_nobody_spends_lapses_as_fast_as_the_bucket_refills() {
    // Ten a second, of which a replica gets a sixteenth of a minute's at once: the bucket has them again after 3.7 s.
    let rate = per_minute(600);
    let token = rate.token_ns();
    let mut held = Held::default();
    let ask = held.begin(5, &rate, token).expect("the first goes");
    held.land(5, 5 + MS, &ask, &Server::default().grant(MS, &ask));
    let left = [40, 240, 2_000, 4_000].map(|ms| held.left(5 + ms * MS) / token);
    assert_eq!(left, [37, 34, 16, 0]);
    assert_ne!(held.judge(5 + 4_000 * MS, &rate, token), Verdict::Ready);
}

#[test]
fn kept_tokens_that_are_too_few_lapse() {
    // 10,000 a second, a bucket of ten: full again after a millisecond.
    let rate = rate(10_000, Duration::from_secs(1), 10);
    let token = rate.token_ns();
    let mut held = Held::default();
    let ask = held.begin(5, &rate, 4 * token).expect("the first goes");
    assert_eq!(held.begin(6, &rate, 4 * token), None);
    let grant = Server::default().grant(MS, &Ask { want: 6, ..ask });
    held.land(5, 6, &ask, &grant);
    assert_eq!(held.judge(7, &rate, 4 * token), Verdict::Ready);
    held.spend(7, 4 * token);
    assert_ne!(held.judge(8, &rate, 4 * token), Verdict::Ready, "two are left for the other, who needs four");
    // Later the bucket is full without them.
    assert_ne!(held.judge(8 + 20 * MS, &rate, token), Verdict::Ready);
}

#[test]
fn a_failed_trip_can_be_tried_again_and_a_changed_rate_drops_what_is_held() {
    let (slow, fast) = (per_minute(60), per_minute(600));
    let mut held = Held::default();
    let ask = held.begin(5, &slow, slow.token_ns()).unwrap();
    held.fail(6);
    let again = held.begin(7, &slow, slow.token_ns()).expect("nobody is under way");
    assert_eq!(again.least, ask.least);
    held.land(7, 8, &again, &Server::default().grant(MS, &again));
    assert_eq!(held.judge(9, &slow, slow.token_ns()), Verdict::Ready);
    assert_eq!(held.judge(9, &fast, fast.token_ns()), Verdict::Starved);
}

fn worlds(delay: std::ops::Range<u64>) -> impl Strategy<Value = World> {
    let rates = prop_oneof![
        (1u64..100, 1u64..10).prop_map(|(count, burst)| rate(count, Duration::from_secs(1), burst)),
        (1u64..2_000, 1u64..3_000).prop_map(|(count, burst)| rate(count, Duration::from_secs(60), burst)),
        (100_000u64..5_000_000, 1u64..10_000).prop_map(|(count, burst)| rate(
            count,
            Duration::from_secs(1),
            burst
        )),
    ];
    let calls = prop::collection::vec((0u64..40 * MS, 0usize..4, 1u64..6, 1usize..20, any::<u8>()), 1..60);
    let drifts = prop::collection::vec(-900i64..900, 4);
    (rates, drifts, delay.clone(), delay, calls).prop_map(|(rate, drifts, out, back, calls)| {
        let mut world = World::new(rate, &drifts, [out, back]);
        let mut time = 0;
        for (wait, replica, cost, times, what) in calls {
            time += wait;
            for _ in 0..times {
                world.at(time, Event::Call { replica, cost: cost.min(rate.burst()) });
            }
            if what < 20 {
                world.at(time + 1, Event::Crash { replica });
            }
        }
        world
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However calls of any cost fall on four replicas whose clocks drift and which crash: no stretch of time has more
    /// than the burst and the rate.
    #[test]
    fn any_interleaving_stays_within_rate_and_burst(mut world in worlds(0..1)) {
        world.run(u64::MAX);
        // The server counts in microseconds: it may round one up for the burst and one for its time.
        world.check(2_000)?;
    }

    /// With a network that takes time, those who waited pass that much after the server has let them.
    #[test]
    fn a_slow_network_moves_admissions_by_its_delay_and_no_more(mut world in worlds(0..30 * MS)) {
        world.run(u64::MAX);
        world.check(60 * MS + GRACE_NS)?;
    }
}
