//! A network of our own on a real system: what the rules say happens to real connections, and nothing is left behind.
//!
//! Without root there is no such network: then the tests say so and look at what is said to be unavailable instead.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jepsen_style_tests::cluster::{Cluster, Layout, Member, Place, disks_unavailable};
use jepsen_style_tests::network::{self, Flapping, Host, Link, Network, Reordering, Rule};
use jepsen_style_tests::random::Seed;

/// What a message has.
const MESSAGE: usize = 200_000;
/// What is long enough for a connection that no packet of passes to fail.
const PATIENCE: Duration = Duration::from_millis(700);

const ONE: Host = Host::Member(Member::Coordinator(1));
const TWO: Host = Host::Member(Member::Participant(1));

/// One test at a time: they look at the threads of this process and at what there is on the whole machine.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this machine allows it; says so if it does not, so that nobody takes silence for a pass.
fn allowed() -> bool {
    let reason = network::unavailable();
    if let Some(reason) = &reason {
        println!("only what is not available was tested: {reason}");
        let all = jepsen_style_tests::nemesis::all();
        let fault = all
            .iter()
            .find(|fault| fault.name() == "partition-leader")
            .unwrap();
        assert_eq!(fault.unavailable().as_ref(), Some(reason));
    }
    reason.is_none()
}

/// Two hosts, and a server at the second that sends back what it gets.
fn two_hosts() -> Network {
    let network = Network::new([ONE, TWO], Seed(7)).unwrap();
    let listener = network
        .at(TWO, || TcpListener::bind((TWO.address(), 7000)))
        .unwrap();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || echo(connection));
        }
    });
    network
}

fn echo(mut connection: TcpStream) -> io::Result<()> {
    let mut received = Vec::new();
    connection.read_to_end(&mut received)?;
    connection.write_all(&received)
}

/// Sends a message from the first host to the second and back. How long it took.
fn ask(network: &Network) -> io::Result<Duration> {
    network.at(ONE, || {
        let begun = Instant::now();
        let mut connection = TcpStream::connect_timeout(&(TWO.address(), 7000).into(), PATIENCE)?;
        connection.set_read_timeout(Some(Duration::from_secs(30)))?;
        let message: Vec<u8> = (0..MESSAGE).map(|place| (place % 251) as u8).collect();
        connection.write_all(&message)?;
        connection.shutdown(Shutdown::Write)?;
        let mut back = Vec::new();
        connection.read_to_end(&mut back)?;
        assert_eq!(back.len(), message.len());
        assert!(
            back == message,
            "it is the same after everything that happened to it"
        );
        Ok(begun.elapsed())
    })
}

fn there_and_back() -> [Link; 2] {
    [Link { from: ONE, to: TWO }, Link { from: TWO, to: ONE }]
}

/// Asks while this rule holds, and what was counted meanwhile.
fn ask_under(network: &Network, rule: Rule) -> (io::Result<Duration>, network::Counts) {
    let before = network.counts(&there_and_back());
    network.set(&there_and_back(), rule);
    let asked = ask(network);
    let counts = network.counts(&there_and_back()) - before;
    network.set(&there_and_back(), Rule::default());
    (asked, counts)
}

#[test]
fn connections_go_through_the_router_and_suffer_what_the_rules_say() {
    let _alone = alone();
    if !allowed() {
        return;
    }
    let network = two_hosts();
    let (asked, counts) = ask_under(&network, Rule::default());
    asked.unwrap();
    assert!(counts.sent > 200, "every packet is seen: {counts}");
    let nothing_happened = network::Counts {
        sent: counts.sent,
        ..network::Counts::default()
    };
    assert_eq!(counts, nothing_happened);

    let (asked, counts) = ask_under(&network, Rule::cut());
    assert_eq!(asked.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(counts.cut > 0 && counts.cut == counts.sent, "{counts}");
    ask(&network).unwrap();

    // One direction is enough, and the other counts what passes.
    let [there, back] = there_and_back();
    let before = network.counts(&[back]);
    network.set(&[back], Rule::cut());
    assert_eq!(ask(&network).unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!((network.counts(&[back]) - before).cut > 0);
    network.set(&[there, back], Rule::default());

    let delay = Duration::from_millis(60);
    let (asked, counts) = ask_under(
        &network,
        Rule {
            delay,
            ..Rule::default()
        },
    );
    assert!(asked.unwrap() >= delay * 4, "two round trips at least");
    assert_eq!(counts.delayed, counts.sent);

    let (asked, counts) = ask_under(
        &network,
        Rule {
            loss: 0.05,
            ..Rule::default()
        },
    );
    asked.unwrap();
    assert!(counts.lost > 0, "{counts}");

    let (asked, counts) = ask_under(
        &network,
        Rule {
            duplication: 0.5,
            ..Rule::default()
        },
    );
    asked.unwrap();
    assert!(counts.duplicated > 20, "{counts}");

    let held = Duration::from_millis(5);
    let reordering = Some(Reordering { share: 0.2, held });
    let (asked, counts) = ask_under(
        &network,
        Rule {
            reordering,
            ..Rule::default()
        },
    );
    asked.unwrap();
    assert!(counts.overtaken > 0, "{counts}");

    let flapping = Some(Flapping {
        down: Duration::from_millis(100),
        up: Duration::from_secs(3600),
    });
    let before = Instant::now();
    network.set(
        &there_and_back(),
        Rule {
            flapping,
            ..Rule::default()
        },
    );
    // The system repeats the first packet of a connection after a second.
    let patient = network.at(ONE, || {
        TcpStream::connect_timeout(&(TWO.address(), 7000).into(), Duration::from_secs(10))
    });
    patient.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(100));
}

#[test]
fn an_idle_router_costs_nothing() {
    let _alone = alone();
    if !allowed() {
        return;
    }
    let network = two_hosts();
    ask(&network).unwrap();
    // A delayed packet is waited for asleep.
    let rule = Rule {
        delay: Duration::from_millis(200),
        ..Rule::default()
    };
    let before = router_ticks();
    let (asked, _) = ask_under(&network, rule);
    asked.unwrap();
    // Clock ticks of a hundredth of a second: some for two hundred packets, none for the time of waiting.
    assert!(router_ticks() - before < 30, "{} ticks", router_ticks() - before);
}

/// The time that threads of this name have taken, in clock ticks.
fn router_ticks() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats
        .filter(|stat| stat.contains("(router)"))
        .map(|stat| {
            let fields: Vec<u64> = stat
                .rsplit_once(") ")
                .unwrap()
                .1
                .split(' ')
                .map(|field| field.parse().unwrap_or(0))
                .collect();
            fields[11] + fields[12]
        })
        .sum()
}

/// What could be left of a cluster in this folder: mounts and loop devices there, processes of ours, named namespaces.
fn left_behind(folder: &str) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let loops = output(Command::new("losetup").args(["--all", "--noheadings", "--output", "NAME,BACK-FILE"]));
    let named = output(Command::new("ip").arg("netns"));
    let processes = output(Command::new("ps").args(["-e", "-o", "pid,args"]));
    [mounts, loops, named, processes]
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| line.contains(folder))
        .map(str::to_owned)
        .collect()
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A cluster at its best place in this folder.
fn start(folder: &std::path::Path) -> Cluster {
    let layout = Layout {
        coordinators: 1,
        participants: 1,
        replaced: 0,
    };
    let (place, addresses) = Place::best(layout, Seed(7)).unwrap();
    let executable = PathBuf::from(env!("CARGO_BIN_EXE_jepsen-style-tests"));
    Cluster::start_at(place, addresses, &executable, folder, layout).unwrap()
}

#[test]
fn nothing_is_left_behind_whether_it_ends_well_or_in_a_panic() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let cluster = start(folder.path());
    let there = left_behind(&path);
    // The two processes at least, and a mount and a loop device for each disk.
    let disks = if allowed() && disks_unavailable().is_none() {
        2
    } else {
        0
    };
    assert!(there.len() >= 2 + 2 * disks, "{there:#?}");
    drop(cluster);
    assert_eq!(left_behind(&path), Vec::<String>::new());

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _cluster = start(folder.path());
        panic!("as planned");
    }));
    assert!(panicked.is_err());
    assert_eq!(left_behind(&path), Vec::<String>::new());
}

#[test]
fn a_disk_keeps_what_was_written_and_can_be_taken_away_and_made_read_only() {
    let _alone = alone();
    if !allowed() || disks_unavailable().is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = start(folder.path());
    let member = Member::Participant(1);
    cluster.kill(member).unwrap();
    let disk = cluster.disk(member).unwrap();
    assert_eq!(disk.folder(), cluster.data(member));
    let file = disk.folder().join("file");
    std::fs::write(&file, "written").unwrap();
    assert!(disk.device().unwrap().is_some());
    disk.unmount().unwrap();
    assert_eq!(disk.device().unwrap(), None);
    assert!(!file.exists() && disk.image().exists());
    disk.mount().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "written");
    disk.remount("ro").unwrap();
    let refused = std::fs::write(&file, "again").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    disk.remount("rw").unwrap();
    std::fs::write(&file, "again").unwrap();
    let image = disk.image().to_owned();
    cluster.discard_disks().unwrap();
    drop(cluster);
    assert!(!image.exists());
    assert_eq!(left_behind(folder.path().to_str().unwrap()), Vec::<String>::new());
}

#[test]
fn a_run_that_is_interrupted_or_killed_leaves_nothing_for_long() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, signal: &str| {
        let path = folder.path().join(name);
        let path = path.to_str().unwrap().to_owned();
        let mut run = Command::new(env!("CARGO_BIN_EXE_jepsen-style-tests"))
            .args([
                "run",
                "--nemesis",
                "kill-participant",
                "--seconds",
                "600",
                "--folder",
                &path,
            ])
            .spawn()
            .unwrap();
        let log = folder.path().join(name).join("data/c1.log");
        until("a process of it serves", || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains("serving"))
        });
        output(Command::new("kill").args([signal, &run.id().to_string()]));
        run.wait().unwrap();
        path
    };
    let interrupted = run("interrupted", "-INT");
    assert_eq!(left_behind(&interrupted), Vec::<String>::new());
    // Nobody can do anything about this one; its processes see that it is gone, and the next run sees its disks.
    let killed = run("killed", "-KILL");
    until("its processes are gone", || {
        jepsen_style_tests::cluster::sweep_disks();
        left_behind(&killed).is_empty()
    });
}

fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
