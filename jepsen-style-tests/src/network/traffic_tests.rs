use super::*;
use crate::cluster::Member;
use crate::network::Flapping;

const MS: Duration = Duration::from_millis(1);

fn link() -> Link {
    Link {
        from: Host::Member(Member::Coordinator(1)),
        to: Host::Member(Member::Participant(2)),
    }
}

/// Traffic with one rule, and when it came into force.
fn traffic(rule: Rule) -> (Traffic, Instant) {
    let mut traffic = Traffic::new(Seed(7));
    let start = Instant::now();
    traffic.set(link(), rule, start);
    (traffic, start)
}

/// Sends packets numbered from 0 on, one in each millisecond.
fn send(traffic: &mut Traffic, start: Instant, packets: u8) {
    for number in 0..packets {
        traffic.arrive(link(), &[number], start + MS * u32::from(number));
    }
}

/// What is delivered until everything is, in order.
fn delivered(traffic: &mut Traffic, start: Instant) -> Vec<u8> {
    let end = start + Duration::from_secs(3600);
    std::iter::from_fn(|| traffic.deliver(end))
        .map(|(to, packet)| {
            assert_eq!(to, link().to);
            packet[0]
        })
        .collect()
}

#[test]
fn without_a_rule_packets_pass_at_once_and_in_order() {
    let (mut traffic, start) = traffic(Rule::default());
    for number in 0..10 {
        traffic.arrive(link(), &[number], start);
    }
    let order: Vec<u8> = std::iter::from_fn(|| traffic.deliver(start))
        .map(|(_, packet)| packet[0])
        .collect();
    assert_eq!(order, (0..10).collect::<Vec<u8>>());
    assert_eq!(traffic.due(), None, "nothing to wake up for");
    assert_eq!(
        traffic.counts(link()),
        Counts {
            sent: 10,
            ..Counts::default()
        }
    );
}

#[test]
fn a_cut_link_lets_nothing_pass_and_the_way_back_is_open() {
    let (mut traffic, start) = traffic(Rule::cut());
    send(&mut traffic, start, 10);
    assert_eq!(delivered(&mut traffic, start), Vec::<u8>::new());
    assert_eq!(traffic.counts(link()).cut, 10);
    let back = Link {
        from: link().to,
        to: link().from,
    };
    traffic.arrive(back, &[1], start);
    assert_eq!(traffic.deliver(start), Some((link().from, vec![1])));
}

#[test]
fn a_rule_that_is_lifted_is_gone_and_what_it_did_stays_counted() {
    let (mut traffic, start) = traffic(Rule::cut());
    send(&mut traffic, start, 5);
    traffic.set(link(), Rule::default(), start + MS * 5);
    traffic.arrive(link(), &[9], start + MS * 6);
    assert_eq!(delivered(&mut traffic, start), [9]);
    assert_eq!(traffic.counts(link()).cut, 5);
    assert_eq!(traffic.counts(link()).sent, 6);
}

#[test]
fn a_flapping_link_is_down_first_and_then_up_again_and_again() {
    let flapping = Some(Flapping {
        down: MS * 3,
        up: MS * 2,
    });
    let (mut traffic, start) = traffic(Rule {
        flapping,
        ..Rule::default()
    });
    send(&mut traffic, start, 12);
    assert_eq!(delivered(&mut traffic, start), [3, 4, 8, 9]);
    assert_eq!(traffic.counts(link()).cut, 8);
}

#[test]
fn a_delay_makes_packets_late_and_leaves_their_order() {
    let (mut traffic, start) = traffic(Rule {
        delay: MS * 20,
        jitter: MS * 50,
        ..Rule::default()
    });
    send(&mut traffic, start, 100);
    let latest = start + MS * (99 + 70);
    let order: Vec<u8> = std::iter::from_fn(|| traffic.deliver(latest))
        .map(|(_, packet)| packet[0])
        .collect();
    assert_eq!(order, (0..100).collect::<Vec<u8>>());
    assert_eq!(traffic.counts(link()).delayed, 100);
    assert_eq!(traffic.counts(link()).overtaken, 0);
}

#[test]
fn a_packet_is_due_after_the_delay_and_not_before() {
    let (mut traffic, start) = traffic(Rule {
        delay: MS * 20,
        ..Rule::default()
    });
    traffic.arrive(link(), &[1], start);
    assert_eq!(traffic.due(), Some(start + MS * 20));
    assert_eq!(traffic.deliver(start + MS * 20 - MS / 10), None);
    assert!(traffic.deliver(start + MS * 20).is_some());
}

#[test]
fn the_share_that_is_lost_is_about_what_the_rule_says() {
    let (mut traffic, start) = traffic(Rule {
        loss: 0.3,
        ..Rule::default()
    });
    send(&mut traffic, start, 250);
    let counts = traffic.counts(link());
    assert!((50..100).contains(&counts.lost), "{counts}");
    let order = delivered(&mut traffic, start);
    assert_eq!(order.len() as u64, 250 - counts.lost);
    assert!(order.is_sorted());
}

#[test]
fn duplicates_are_delivered_twice_and_counted() {
    let (mut traffic, start) = traffic(Rule {
        duplication: 0.5,
        ..Rule::default()
    });
    send(&mut traffic, start, 200);
    let order = delivered(&mut traffic, start);
    let counts = traffic.counts(link());
    assert_eq!(order.len() as u64, 200 + counts.duplicated);
    assert!((60..140).contains(&counts.duplicated), "{counts}");
    assert_eq!(counts.overtaken, 0, "a copy overtakes nobody");
}

#[test]
fn what_is_held_back_is_overtaken_and_counted_only_then() {
    let reordering = Some(Reordering {
        share: 0.2,
        held: MS * 5,
    });
    let rule = Rule {
        reordering,
        ..Rule::default()
    };
    let (mut busy, start) = traffic(rule);
    send(&mut busy, start, 200);
    let order = delivered(&mut busy, start);
    assert_eq!(order.len(), 200, "none is lost");
    assert!(!order.is_sorted());
    let counts = busy.counts(link());
    let mut newest = 0;
    let overtaken = order.iter().filter(|number| {
        newest = newest.max(**number);
        **number < newest
    });
    assert_eq!(counts.overtaken, overtaken.count() as u64);
    // The same where packets are rare: some are held back, and nobody overtakes them.
    let (mut idle, start) = traffic(rule);
    for number in 0..200 {
        idle.arrive(link(), &[number], start + MS * 10 * u32::from(number));
    }
    assert!(delivered(&mut idle, start).is_sorted());
    assert_eq!(idle.counts(link()).overtaken, 0);
}

#[test]
fn the_same_seed_does_the_same_and_another_does_not() {
    let lost = |seed| {
        let mut traffic = Traffic::new(Seed(seed));
        let start = Instant::now();
        let rule = Rule {
            loss: 0.5,
            ..Rule::default()
        };
        traffic.set(link(), rule, start);
        send(&mut traffic, start, 100);
        delivered(&mut traffic, start)
    };
    assert_eq!(lost(7), lost(7));
    assert_ne!(lost(7), lost(8));
}

#[test]
fn there_is_room_for_so_many_packets_and_no_more() {
    let (mut traffic, start) = traffic(Rule {
        delay: MS,
        ..Rule::default()
    });
    for _ in 0..=ROOM {
        traffic.arrive(link(), &[0], start);
    }
    assert_eq!(traffic.counts(link()).overflowed, 1);
    assert_eq!(delivered(&mut traffic, start).len(), ROOM);
}
