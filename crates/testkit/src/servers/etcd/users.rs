//! The cluster's users, and questions as root.

use serde_json::{Value, json};

use super::options::{EtcdUser, PREFIX, ROOT, USER};
use super::{Etcd, gateway};

impl Etcd {
    pub(super) fn try_ask(&self, member: usize, path: &str, body: &Value) -> Result<Value, String> {
        let port = self.ports[member].gateway;
        let ask = |path: &str, body: &Value, token| gateway::ask(port, path, body, token);
        if !self.options.auth {
            return ask(path, body, None);
        }
        let login = json!({"name": ROOT.name, "password": ROOT.password});
        let login = ask("/v3/auth/authenticate", &login, None)?;
        ask(path, body, login["token"].as_str())
    }

    /// Makes [`ROOT`] and [`USER`], and lets nobody else in from now on.
    pub(super) fn enable_auth(&self) {
        let ask = |path: &str, body: Value| {
            gateway::ask(self.ports[0].gateway, path, &body, None)
                .unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log(0)));
        };
        ask("/v3/auth/role/add", json!({"name": "root"}));
        ask("/v3/auth/role/add", json!({"name": "quorate"}));
        // The first key that does not begin with the prefix.
        let mut range_end = PREFIX.as_bytes().to_vec();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        let all_below = json!({
            "permType": "READWRITE",
            "key": gateway::base64(PREFIX.as_bytes()),
            "range_end": gateway::base64(&range_end),
        });
        ask(
            "/v3/auth/role/grant",
            json!({"name": "quorate", "perm": all_below}),
        );
        for (user, role) in [(ROOT, "root"), (USER, "quorate")] {
            let EtcdUser { name, password } = user;
            ask(
                "/v3/auth/user/add",
                json!({"name": name, "password": password}),
            );
            ask("/v3/auth/user/grant", json!({"user": name, "role": role}));
        }
        ask("/v3/auth/enable", json!({}));
    }
}
