use super::*;
use crate::random::Seed;

fn links(shape: Shape, nodes: u64, seed: u64) -> (BTreeSet<Link>, String) {
    let layout = Layout {
        coordinators: nodes,
        participants: 3,
        replaced: 0,
    };
    let (links, what) = shape.links(layout, 1, &mut Seed(seed).stream("schedule"));
    let set: BTreeSet<Link> = links.iter().copied().collect();
    assert_eq!(set.len(), links.len(), "each link once: {what}");
    (set, what)
}

/// How many hosts a host does not reach.
fn unreached(links: &BTreeSet<Link>, from: Host) -> usize {
    links.iter().filter(|link| link.from == from).count()
}

fn is_symmetric(links: &BTreeSet<Link>) -> bool {
    links.iter().all(|link| {
        links.contains(&Link {
            from: link.to,
            to: link.from,
        })
    })
}

#[test]
fn halves_cut_every_pair_across_and_none_within() {
    for seed in 0..20 {
        let (links, what) = links(Shape::Halves, 3, seed);
        assert!(is_symmetric(&links));
        // Seven hosts: three on one side, four on the other.
        assert_eq!(links.len(), 2 * 3 * 4, "{what}");
    }
}

#[test]
fn a_leader_alone_reaches_nobody_and_is_reached_by_nobody() {
    for shape in [Shape::Leader, Shape::Flapping] {
        let (links, _) = links(shape, 3, 1);
        assert!(is_symmetric(&links));
        assert_eq!(unreached(&links, node(1)), 6);
        assert_eq!(links.len(), 12);
    }
}

#[test]
fn a_leader_that_is_not_heard_hears_all() {
    let (links, _) = links(Shape::OneWay, 3, 1);
    assert_eq!(unreached(&links, node(1)), 6);
    assert!(links.iter().all(|link| link.to != node(1)));
}

#[test]
fn a_minority_never_has_a_quorum() {
    for nodes in 3..=5 {
        let (links, what) = links(Shape::Minority, nodes, nodes);
        let alone = layout_nodes(nodes)
            .filter(|node| unreached(&links, *node) > 4)
            .count();
        assert!(alone >= 1 && alone * 2 < nodes as usize, "{what}");
    }
}

#[test]
fn in_a_ring_of_five_each_reaches_its_two_neighbours_and_a_ring_of_three_is_open_at_one_place() {
    let (five, what) = links(Shape::Ring, 5, 1);
    assert!(is_symmetric(&five));
    for node in layout_nodes(5) {
        assert_eq!(unreached(&five, node), 2, "{what}");
    }
    let (three, what) = links(Shape::Ring, 3, 1);
    assert!(is_symmetric(&three));
    assert_eq!(three.len(), 2, "{what}");
    // Between the leader and another one: two that follow have too little to say for it to be noticed.
    assert_eq!(unreached(&three, node(1)), 1, "{what}");
}

#[test]
fn clients_lose_the_leader_at_least_and_nobody_else_loses_anybody() {
    for seed in 0..20 {
        let (links, _) = links(Shape::Clients, 3, seed);
        assert!(links.contains(&Link {
            from: Host::Clients,
            to: node(1)
        }));
        assert!(
            links
                .iter()
                .all(|link| link.from == Host::Clients || link.to == Host::Clients)
        );
    }
}

#[test]
fn a_lost_participant_keeps_the_clients() {
    let (links, _) = links(Shape::Participants, 3, 1);
    // Three nodes and two participants, both ways.
    assert_eq!(links.len(), 10);
    assert!(
        links
            .iter()
            .all(|link| link.from != Host::Clients && link.to != Host::Clients)
    );
}

#[test]
fn where_raft_alone_is_cut_the_old_leader_is_reached_by_participants_and_clients() {
    let (links, _) = links(Shape::Raft, 3, 1);
    assert_eq!(links.len(), 4);
    let nodes: BTreeSet<Host> = layout_nodes(3).collect();
    assert!(
        links
            .iter()
            .all(|link| nodes.contains(&link.from) && nodes.contains(&link.to))
    );
}

fn layout_nodes(nodes: u64) -> impl Iterator<Item = Host> {
    (1..=nodes).map(node)
}
