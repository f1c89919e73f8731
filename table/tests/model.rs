//! Random changes, restarts and crashes against a plain map.

// A test fails by panicking, in its helping functions too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use unanimo_table::{Batch, MemoryTable, SledOptions, SledTable, Table, TableError};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    Apply(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Get(Vec<u8>),
    Scan(Vec<u8>, Option<Vec<u8>>, usize),
    Checkpoint,
    /// Close and open, on disk; crash, in memory.
    Restart(u64),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few different keys, so that they meet; some share long prefixes, which sled stores only once.
    prop_oneof![
        prop::collection::vec(0..3_u8, 1..4),
        (0..4_u8, 0..3_u8).prop_map(|(one, other)| [vec![7; 20], vec![one, other]].concat()),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (any::<u8>(), 0..20_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let change = (key(), prop::option::weighted(0.7, value()));
    let from = prop_oneof![Just(Vec::new()), key()];
    prop_oneof![
        10 => prop::collection::vec(change, 0..12).prop_map(Step::Apply),
        3 => key().prop_map(Step::Get),
        3 => (from, prop::option::of(key()), 0..20_usize)
            .prop_map(|(from, until, limit)| Step::Scan(from, until, limit)),
        2 => Just(Step::Checkpoint),
        1 => any::<u64>().prop_map(Step::Restart),
    ]
}

fn batch(changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Batch {
    let mut batch = Batch::new();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(key.clone(), value.clone()),
            None => batch.remove(key.clone()),
        };
    }
    batch
}

fn change(model: &mut Model, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(key.clone(), value.clone()),
            None => model.remove(key),
        };
    }
}

fn contents(table: &dyn Table) -> Model {
    table.scan(b"", None, usize::MAX).unwrap().into_iter().collect()
}

/// Everything but a restart.
fn compare(table: &dyn Table, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Apply(changes) => {
            table.apply(batch(changes)).unwrap();
            change(model, changes);
        }
        Step::Get(key) => prop_assert_eq!(table.get(key).unwrap(), model.get(key).cloned()),
        Step::Scan(from, until, limit) => {
            let inside = |key: &Vec<u8>| key >= from && until.as_ref().is_none_or(|until| key < until);
            let expected = model.iter().filter(|(key, _)| inside(key)).take(*limit);
            let found = table.scan(from, until.as_deref(), *limit).unwrap();
            let expected: Vec<_> = expected
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            prop_assert_eq!(found, expected);
        }
        Step::Checkpoint => table.checkpoint().unwrap(),
        Step::Restart(_) => unreachable!("each test has its own restarts"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_table_on_disk_is_a_map_that_survives_restarts(steps in prop::collection::vec(step(), 1..60)) {
        let parent = tempfile::tempdir().unwrap();
        let open = || {
            let opened = SledTable::open(parent.path().join("table"), SledOptions::new("test")).unwrap();
            assert_eq!(opened.set_aside, None);
            opened.table
        };
        let mut model = Model::new();
        let mut table = open();
        for step in &steps {
            if let Step::Restart(_) = step {
                drop(table);
                table = open();
                prop_assert_eq!(&contents(&table), &model);
            } else {
                compare(&table, &mut model, step)?;
            }
        }
        prop_assert_eq!(contents(&table), model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_in_memory_keeps_the_checkpoint_and_a_prefix_of_the_rest(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let table = MemoryTable::new();
        let mut model = Model::new();
        // Every state since the last checkpoint, the checkpoint's own first.
        let mut states = vec![Model::new()];
        for step in &steps {
            match step {
                Step::Restart(seed) => {
                    let lost = table.crash(*seed);
                    prop_assert!(lost < states.len());
                    let kept = states.len() - 1 - lost;
                    model = states[kept].clone();
                    prop_assert_eq!(&contents(&table), &model);
                    prop_assert_eq!(table.crash(seed.wrapping_add(1)), 0, "what a crash has kept is durable");
                    states = vec![model.clone()];
                }
                step => {
                    compare(&table, &mut model, step)?;
                    match step {
                        Step::Apply(changes) if !changes.is_empty() => states.push(model.clone()),
                        Step::Checkpoint => states = vec![model.clone()],
                        Step::Apply(_) | Step::Get(_) | Step::Scan(..) | Step::Restart(_) => {}
                    }
                }
            }
        }
        prop_assert_eq!(contents(&table), model);
    }
}

#[test]
fn a_crash_in_memory_keeps_none_some_or_all() {
    let mut kept = [false; 4];
    for seed in 0..100 {
        let table = MemoryTable::new();
        for number in 1..=3_u8 {
            table
                .apply(batch(&[
                    (vec![number], Some(vec![number])),
                    (vec![9], Some(vec![number])),
                ]))
                .unwrap();
        }
        let twin = table.clone();
        let lost = table.crash(seed);
        let count = 3 - lost;
        let mut expected = Model::new();
        for number in 1..=count as u8 {
            change(
                &mut expected,
                &[(vec![number], Some(vec![number])), (vec![9], Some(vec![number]))],
            );
        }
        assert_eq!(contents(&twin), expected);
        kept[count] = true;
    }
    assert_eq!(kept, [true; 4], "the seeds reach every outcome");
}

#[test]
fn the_same_seed_loses_the_same() {
    let run = |seed| {
        let table = MemoryTable::new();
        for number in 1..=200_u8 {
            table.apply(batch(&[(vec![number], Some(vec![1]))])).unwrap();
        }
        table.crash(seed)
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}

#[test]
fn a_failure_in_memory_is_final_until_the_restart() {
    type Arm = fn(&MemoryTable);
    let arms: [(Arm, bool); 2] = [
        (MemoryTable::fail_next_apply, true),
        (MemoryTable::fail_next_checkpoint, false),
    ];
    for (arm, apply) in arms {
        let table = Arc::new(MemoryTable::new());
        table.apply(batch(&[(vec![1], Some(vec![1]))])).unwrap();
        table.checkpoint().unwrap();
        arm(&table);
        let change = || table.apply(batch(&[(vec![2], Some(vec![2]))]));
        let first = if apply { change() } else { table.checkpoint() };
        assert!(matches!(first, Err(TableError::Failed { .. })), "{first:?}");
        assert!(matches!(table.get(&[1]), Err(TableError::Failed { .. })));
        assert!(matches!(table.scan(b"", None, 1), Err(TableError::Failed { .. })));
        assert!(matches!(change(), Err(TableError::Failed { .. })));
        assert!(matches!(table.checkpoint(), Err(TableError::Failed { .. })));
        table.crash(1);
        assert_eq!(contents(&*table), Model::from([(vec![1], vec![1])]));
        change().unwrap();
        table.checkpoint().unwrap();
        assert_eq!(table.checkpoints(), 2);
    }
}
