//! The `unanimo` command as an operator uses it.

// In a test a panic is the report.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cluster::{PATIENCE, free_port};
use tempfile::TempDir;

/// Three nodes as processes of their own, from the sample configurations with other ports.
struct Processes {
    folder: TempDir,
    ports: [u16; 3],
    nodes: Vec<Child>,
    /// The shortest and the longest time without a leader before a node asks for votes, in milliseconds.
    election_ms: (u64, u64),
}

/// Patient elections, so that leaders change when a test wants it.
const PATIENT_MS: (u64, u64) = (700, 1400);

impl Drop for Processes {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn unanimo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_unanimo"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asks until the answer satisfies, or fails the test.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    // A command that loses its leader waits a minute before it gives up.
    let deadline = Instant::now() + PATIENCE * 5;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Processes {
    fn start() -> Self {
        Self::start_with(PATIENT_MS)
    }

    fn start_with(election_ms: (u64, u64)) -> Self {
        let folder = TempDir::new().unwrap();
        let ports = [free_port(), free_port(), free_port()];
        let mut this = Self {
            folder,
            ports,
            nodes: Vec::new(),
            election_ms,
        };
        for node in 1..=3 {
            this.configure(node, &format!("node{node}.toml"), |sample| sample);
            let child = this.spawn(&this.file(&format!("node{node}.toml")));
            this.nodes.push(child);
        }
        this
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a sample configuration with this test's ports and folder.
    fn configure(&self, node: usize, name: &str, change: impl FnOnce(String) -> String) {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/node{node}.toml"));
        let mut text = std::fs::read_to_string(sample).unwrap();
        for (place, port) in self.ports.iter().enumerate() {
            text = text.replace(
                &format!("127.0.0.1:710{}", place + 1),
                &format!("127.0.0.1:{port}"),
            );
        }
        let data = format!("\"{}/node", self.folder.path().display());
        text = text.replace("\"unanimo-data/node", &data);
        let (shortest, longest) = self.election_ms;
        text = text.replace("election_min_ms = 300", &format!("election_min_ms = {shortest}"));
        text = text.replace("election_max_ms = 600", &format!("election_max_ms = {longest}"));
        std::fs::write(self.file(name), change(text)).unwrap();
    }

    fn spawn(&self, config: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_unanimo"))
            .args(["serve", "--config"])
            .arg(config)
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn status(&self, place: usize) -> String {
        text(&unanimo(&["status", "--node", &format!("127.0.0.1:{}", self.ports[place])]).stdout)
    }

    /// Has whoever leads carry out a command, again if the leader changes meanwhile.
    fn at_the_leader(&self, command: &str, arguments: &[&str]) {
        until(command, || {
            let address = format!("127.0.0.1:{}", self.ports[self.leader()]);
            let output = unanimo(&[&[command, "--node", &address], arguments].concat());
            // A command whose answer was lost may have been carried out.
            let done_before = ["is a member already", "is not a member"]
                .iter()
                .any(|says| text(&output.stderr).contains(says));
            eprintln!("{command}: {}", text(&output.stderr));
            output.status.success() || done_before
        });
    }

    fn leader(&self) -> usize {
        let mut leader = 0;
        until("an election", || {
            match (0..3).find(|place| self.status(*place).contains("(leader, term")) {
                Some(found) => {
                    leader = found;
                    true
                }
                None => false,
            }
        });
        leader
    }
}

#[test]
fn three_commands_form_a_cluster_that_operators_can_look_at_and_change() {
    let mut cluster = Processes::start();
    let leader = cluster.leader();
    let status = cluster.status(leader);
    for line in [
        "cluster      demo",
        "member       1 at",
        "member       2 at",
        "member       3 at",
        "(voter)",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    // A snapshot on demand.
    cluster.at_the_leader("snapshot", &[]);
    until("the snapshot", || {
        !cluster.status(cluster.leader()).contains("snapshot 0,")
    });
    // Leadership on demand.
    let successor = (cluster.leader() + 1) % 3;
    let to = (successor + 1).to_string();
    until("the transfer", || {
        let leader = cluster.leader();
        let address = format!("127.0.0.1:{}", cluster.ports[leader]);
        leader == successor || {
            unanimo(&["transfer-leader", "--node", &address, "--to", &to]);
            false
        }
    });
    // SIGTERM ends a node in order, and the others go on.
    let process = cluster.nodes[successor].id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &process])
            .status()
            .unwrap()
            .success()
    );
    let ended = cluster.nodes[successor].wait().unwrap();
    assert!(ended.success(), "{ended}");
    let next = cluster.leader();
    assert_ne!(next, successor);
}

#[test]
fn a_leader_whose_process_dies_is_replaced_without_waiting_for_a_timeout() {
    let shortest = Duration::from_secs(30);
    let mut cluster = Processes::start_with((30_000, 60_000));
    let leader = cluster.leader();
    // Followers know their leader once it has sent them something.
    let named = format!("leader       {}", leader + 1);
    until("everybody follows", || {
        (0..3).all(|place| cluster.status(place).contains(&named))
    });
    let killed_at = Instant::now();
    cluster.nodes[leader].kill().unwrap();
    cluster.nodes[leader].wait().unwrap();
    until("another leader", || {
        (0..3).any(|place| place != leader && cluster.status(place).contains("(leader, term"))
    });
    assert!(killed_at.elapsed() < shortest, "{:?}", killed_at.elapsed());
}

#[test]
fn a_node_can_be_replaced_by_a_new_one_under_a_new_id() {
    let mut cluster = Processes::start();
    let leader = cluster.leader();
    let lost = (leader + 1) % 3;
    cluster.nodes[lost].kill().unwrap();
    cluster.nodes[lost].wait().unwrap();
    // The new node has an id and a folder of its own, and joins.
    let port = free_port();
    cluster.configure(1, "node4.toml", |sample| {
        sample
            .replacen("node = 1\nlisten", "node = 4\nlisten", 1)
            .replacen(
                &format!("listen = \"127.0.0.1:{}\"", cluster.ports[0]),
                &format!("listen = \"127.0.0.1:{port}\""),
                1,
            )
            .replace("/node1\"", "/node4\"")
            .replace("join = false", "join = true")
            .replace(
                "[raft]",
                &format!("[[peers]]\nnode = 4\naddress = \"127.0.0.1:{port}\"\n[raft]"),
            )
    });
    let newcomer = cluster.spawn(&cluster.file("node4.toml"));
    cluster.nodes.push(newcomer);
    let own = format!("127.0.0.1:{port}");
    until("the new node answers", || {
        unanimo(&["status", "--node", &own]).status.success()
    });
    cluster.at_the_leader("add-node", &["--id", "4", "--address", &own]);
    let lost_id = (lost + 1).to_string();
    cluster.at_the_leader("remove-node", &["--id", &lost_id]);
    until("the new node votes", || {
        cluster
            .status(cluster.leader())
            .contains(&format!("{own} (voter)"))
    });
    until("the lost node is gone", || {
        !cluster
            .status(cluster.leader())
            .contains(&format!("127.0.0.1:{} (voter)", cluster.ports[lost]))
    });
    // An id that was given out before is never taken again.
    until("the refusal of a used id", || {
        let address = format!("127.0.0.1:{}", cluster.ports[cluster.leader()]);
        let again = unanimo(&[
            "add-node",
            "--node",
            &address,
            "--id",
            &lost_id,
            "--address",
            &own,
        ]);
        assert!(!again.status.success());
        text(&again.stderr).contains("before")
    });
}

#[test]
fn what_is_wrong_is_said_and_the_exit_code_tells() {
    let cluster = Processes {
        folder: TempDir::new().unwrap(),
        ports: [free_port(), free_port(), free_port()],
        nodes: Vec::new(),
        election_ms: PATIENT_MS,
    };
    cluster.configure(1, "bad.toml", |sample| {
        sample.replace("heartbeat_ms = 100", "heartbeat_ms = 1000")
    });
    let bad = cluster.file("bad.toml").display().to_string();
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["serve", "--config", "no/such.toml"],
            &["no/such.toml", "cannot read"],
        ),
        (
            &["serve", "--config", &bad],
            &["bad.toml", "raft.heartbeat_ms", "1 to 349"],
        ),
        (&["status", "--node", "nowhere"], &["nowhere"]),
        (&["serve"], &["--config"]),
    ];
    for (arguments, says) in cases {
        let output = unanimo(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let error = text(&output.stderr);
        for word in says {
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
    }
}

/// What a process serves under `/metrics`, if it does.
fn scraped(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    reply.starts_with("HTTP/1.1 200").then_some(reply)
}

#[test]
fn a_node_serves_every_metric_that_operators_read_of_and_names_a_port_that_is_taken() {
    let folder = TempDir::new().unwrap();
    let (port, address) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let config = folder.path().join("node.toml");
    let text = format!(
        "cluster = \"demo\"\nnode = 1\nlisten = \"127.0.0.1:{port}\"\nmetrics_address = \"{address}\"\n\
         data = \"{}\"\n[[peers]]\nnode = 1\naddress = \"127.0.0.1:{port}\"\n[raft]\nlog_segment_mib = 8\n",
        folder.path().join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    {
        let _taken = std::net::TcpListener::bind(&address).unwrap();
        let refused = unanimo(&arguments);
        assert!(!refused.status.success());
        let error = self::text(&refused.stderr);
        assert!(
            error.contains(&address) && error.contains("metrics_address"),
            "{error}"
        );
    }
    let node = Command::new(env!("CARGO_BIN_EXE_unanimo"))
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Ended with the test.
    let _running = Processes {
        folder,
        ports: [port; 3],
        nodes: vec![node],
        election_ms: PATIENT_MS,
    };
    let mut page = String::new();
    until("the node leads", || {
        page = scraped(&address).unwrap_or_default();
        page.contains("\nunanimo_coordinator_is_leader 1\n")
    });
    let operations = include_str!("../../docs/operations.md");
    let named = operations.split('`').skip(1).step_by(2);
    let named: Vec<&str> = named
        .map(|text| text.split('{').next().unwrap_or_default())
        .filter(|name| name.starts_with("unanimo_coordinator_"))
        .collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        let sample = |line: &str| line.starts_with(name) && !line.starts_with('#');
        assert!(page.contains(&format!("# HELP {name} ")), "{name}: {page}");
        assert!(page.lines().any(sample), "{name}: {page}");
    }
}
