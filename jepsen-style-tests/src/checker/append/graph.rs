//! Who came before whom, and where that goes round in a circle.

use std::collections::VecDeque;

/// Why one came before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// The other appended after it.
    Wrote,
    /// The other read what it appended.
    Read,
    /// It did not see what the other appended.
    Missed,
    /// It had completed when the other was asked for.
    Time,
}

/// One came before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) why: Why,
    /// The list in which it shows, unless it is time.
    pub(super) list: u32,
    /// The value by which it shows.
    pub(super) value: u64,
}

/// All of it. Takes time in proportion to its size, apart from a bounded search for the best name of a circle.
pub(super) struct Graph {
    /// By where they begin.
    edges: Vec<Edge>,
    /// Where the edges of each node begin, and where those of the last one end.
    starts: Vec<usize>,
    /// How often an edge was looked at.
    pub(super) steps: u64,
}

/// Kinds of edges that may be followed.
pub(super) type Whys<'a> = &'a [Why];

impl Graph {
    /// These edges between so many nodes. Nothing comes before itself.
    pub(super) fn new(nodes: usize, mut edges: Vec<Edge>) -> Self {
        edges.retain(|edge| edge.from != edge.to);
        edges.sort_unstable();
        edges.dedup_by_key(|edge| (edge.from, edge.to, edge.why));
        let mut starts = vec![0; nodes + 1];
        for edge in &edges {
            starts[edge.from as usize + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        Self {
            edges,
            starts,
            steps: 0,
        }
    }

    fn nodes(&self) -> usize {
        self.starts.len() - 1
    }

    fn out(&self, node: u32) -> std::ops::Range<usize> {
        self.starts[node as usize]..self.starts[node as usize + 1]
    }

    /// How many edges there are.
    pub(super) fn len(&self) -> usize {
        self.edges.len()
    }

    /// The sets of nodes that come before each other, each with more than one: Tarjan's algorithm, with a stack of its
    /// own because a history is deeper than a thread's.
    pub(super) fn circles(&mut self, follow: Whys<'_>) -> Vec<Vec<u32>> {
        const NEW: u32 = u32::MAX;
        let nodes = self.nodes();
        let mut order = vec![NEW; nodes];
        let mut low = vec![0_u32; nodes];
        let mut open = vec![false; nodes];
        let (mut stack, mut found, mut count) = (Vec::new(), Vec::new(), 0_u32);
        for root in 0..nodes as u32 {
            if order[root as usize] != NEW {
                continue;
            }
            let mut path = vec![(root, self.out(root))];
            (order[root as usize], low[root as usize]) = (count, count);
            (count, open[root as usize]) = (count + 1, true);
            stack.push(root);
            while let Some((node, rest)) = path.last_mut() {
                let node = *node as usize;
                if let Some(place) = rest.next() {
                    self.steps += 1;
                    let Edge { to, why, .. } = self.edges[place];
                    let next = to as usize;
                    if !follow.contains(&why) {
                    } else if order[next] == NEW {
                        (order[next], low[next]) = (count, count);
                        (count, open[next]) = (count + 1, true);
                        stack.push(to);
                        path.push((to, self.out(to)));
                    } else if open[next] {
                        low[node] = low[node].min(order[next]);
                    }
                    continue;
                }
                path.pop();
                if let Some((parent, _)) = path.last() {
                    let parent = *parent as usize;
                    low[parent] = low[parent].min(low[node]);
                }
                if low[node] == order[node] {
                    let mut circle = Vec::new();
                    while let Some(member) = stack.pop() {
                        open[member as usize] = false;
                        circle.push(member);
                        if member as usize == node {
                            break;
                        }
                    }
                    if circle.len() > 1 {
                        circle.sort_unstable();
                        found.push(circle);
                    }
                }
            }
        }
        found
    }

    /// The edges from these nodes to each other, of one kind.
    pub(super) fn between<'a>(&'a self, circle: &'a [u32], why: Why) -> impl Iterator<Item = Edge> + 'a {
        circle
            .iter()
            .flat_map(|node| &self.edges[self.out(*node)])
            .filter(move |edge| edge.why == why && circle.binary_search(&edge.to).is_ok())
            .copied()
    }

    /// A shortest way from one node to another, or from a node to itself, within a sorted set of nodes. Gives up after
    /// so many steps.
    pub(super) fn way(
        &mut self,
        from: u32,
        to: u32,
        within: &[u32],
        follow: Whys<'_>,
        most: u64,
    ) -> Option<Vec<Edge>> {
        let mut reached: Vec<Option<usize>> = vec![None; within.len()];
        let mut queue = VecDeque::from([from]);
        let give_up = self.steps.saturating_add(most);
        while let Some(node) = queue.pop_front() {
            for place in self.out(node) {
                self.steps += 1;
                if self.steps > give_up {
                    return None;
                }
                let edge = self.edges[place];
                let Ok(next) = within.binary_search(&edge.to) else {
                    continue;
                };
                if !follow.contains(&edge.why) || reached[next].is_some() {
                    continue;
                }
                reached[next] = Some(place);
                if edge.to == to {
                    return Some(self.back(from, to, within, &reached));
                }
                queue.push_back(edge.to);
            }
        }
        None
    }

    /// The way that was found, from its end back to its beginning.
    fn back(&self, from: u32, to: u32, within: &[u32], reached: &[Option<usize>]) -> Vec<Edge> {
        let mut way = Vec::new();
        let mut at = to;
        while let Some(place) = within.binary_search(&at).ok().and_then(|node| reached[node]) {
            way.push(self.edges[place]);
            at = self.edges[place].from;
            if at == from {
                break;
            }
        }
        way.reverse();
        way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: u32, to: u32, why: Why) -> Edge {
        Edge {
            from,
            to,
            why,
            list: 0,
            value: 0,
        }
    }

    #[test]
    fn circles_are_found_by_the_kinds_that_are_followed() {
        use Why::{Missed, Read, Wrote};
        let edges = vec![
            edge(0, 1, Wrote),
            edge(1, 2, Read),
            edge(2, 0, Wrote),
            edge(2, 3, Wrote),
            edge(3, 4, Missed),
            edge(4, 3, Wrote),
            edge(5, 5, Wrote),
        ];
        let mut graph = Graph::new(6, edges);
        assert_eq!(graph.circles(&[Wrote]), Vec::<Vec<u32>>::new());
        assert_eq!(graph.circles(&[Wrote, Read]), [[0, 1, 2]]);
        assert_eq!(graph.circles(&[Wrote, Read, Missed]), [vec![3, 4], vec![0, 1, 2]]);
        let way = graph.way(1, 1, &[0, 1, 2], &[Wrote, Read], 100).unwrap();
        assert_eq!(way.iter().map(|edge| edge.from).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(graph.way(1, 1, &[0, 1, 2], &[Wrote, Read], 1), None);
        assert_eq!(graph.way(3, 0, &[0, 3, 4], &[Wrote, Missed], 100), None);
        assert_eq!(graph.between(&[3, 4], Missed).count(), 1);
    }

    #[test]
    fn a_long_chain_does_not_need_a_deep_stack() {
        let nodes = 200_000;
        let edges = (1..nodes).map(|node| edge(node - 1, node, Why::Time)).collect();
        let mut graph = Graph::new(nodes as usize, edges);
        assert!(graph.circles(&[Why::Time]).is_empty());
        assert_eq!(graph.steps, u64::from(nodes) - 1);
    }
}
