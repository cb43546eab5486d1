//! How a member is started.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Child;

use super::{Etcd, Process};

/// Kills the members that have their data here. By their directories, for the number
/// that a killed member left behind may be somebody else's by now.
pub(super) const LAST_WORDS: &str = r#"
here=$(pwd -P)
runs() { [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$here/$member" ]; }
for member in member*; do
    pid=$(cat "$member/pid" 2>/dev/null)
    tries=0
    runs && kill -KILL "$pid"
    while runs && [ "$tries" -lt 100 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
done"#;

impl Etcd {
    pub(super) fn launch(&self, processes: &mut [Process], member: usize) {
        assert!(
            matches!(processes[member], Process::Gone),
            "member {member} runs already"
        );
        let child = self
            .spawn(member)
            .unwrap_or_else(|error| panic!("etcd does not start: {error}"));
        processes[member] = Process::Running(child);
    }

    fn spawn(&self, member: usize) -> std::io::Result<Child> {
        let place = self.place(member);
        fs::create_dir_all(&place)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(place.join("log"))?;
        // It writes its number down before it is etcd, so that none escapes the watch.
        let mut command = self.ground.command(Path::new("sh"));
        command.args(["-c", r#"echo $$ >pid && exec "$@""#, "etcd"]);
        command.arg(&self.binary).args(self.arguments(member));
        command.current_dir(place);
        // Etcd takes its flags from there too.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"ETCD_") {
                command.env_remove(name);
            }
        }
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn()
    }

    fn arguments(&self, member: usize) -> Vec<String> {
        let ports = self.ports[member];
        let peer = |port| format!("http://127.0.0.1:{port}");
        let all = self.ports.iter().enumerate();
        let all = all.map(|(at, ports)| format!("m{at}={}", peer(ports.peer)));
        let client = self.endpoint(member);
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: String| {
            arguments.extend([format!("--{flag}"), value]);
        };
        add("name", format!("m{member}"));
        add("data-dir", "data".into());
        add(
            "listen-client-urls",
            format!("{client},{}", peer(ports.gateway)),
        );
        add("advertise-client-urls", client);
        add("listen-peer-urls", peer(ports.peer));
        add("initial-advertise-peer-urls", peer(ports.peer));
        add("initial-cluster", all.collect::<Vec<_>>().join(","));
        add(
            "initial-cluster-token",
            format!("quorate-{}", self.ports[0].peer),
        );
        if self.tls.is_some() {
            add("cert-file", "../tls/etcd.crt".into());
            add("key-file", "../tls/etcd.key".into());
            add("trusted-ca-file", "../tls/ca.crt".into());
            arguments.push("--client-cert-auth".into());
        }
        let mut add = |flag: &str, value: Option<String>| {
            arguments.extend(value.map(|value| format!("--{flag}={value}")));
        };
        let options = &self.options;
        add(
            "quota-backend-bytes",
            options.quota_bytes.map(|n| n.to_string()),
        );
        add(
            "auth-token-ttl",
            options.token_ttl_secs.map(|n| n.to_string()),
        );
        arguments.extend(options.arguments.iter().cloned());
        arguments
    }
}
