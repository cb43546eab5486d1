//! That what a proxy loses between a client and a real etcd is what was asked for.

use std::time::Duration;

use etcd_client::{Client, Error, WatchOptions};
use quorate_testkit::servers::{Etcd, Proxy, Way};
use tokio::task::block_in_place;

/// Longer than anything takes; only a hang reaches it.
const GUARD: Duration = Duration::from_secs(120);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, work).await.expect("it hangs")
}

async fn client(endpoint: String) -> Client {
    let client = Client::connect([endpoint], None);
    within(client).await.expect("it connects")
}

async fn put(client: &mut Client, key: &str, value: &str) -> Result<(), Error> {
    within(client.put(key, value, None)).await.map(|_| ())
}

async fn get(client: &mut Client, key: &str) -> Option<String> {
    let got = within(client.get(key, None)).await.expect("it answers");
    let kv = got.kvs().first()?;
    Some(kv.value_str().expect("text").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_was_done_or_not() {
    let etcd = block_in_place(Etcd::shared);
    let proxy = Proxy::to(etcd.port(0));
    let mut direct = client(etcd.endpoint(0)).await;
    let mut through = client(proxy.endpoint()).await;
    let prefix = etcd.fresh_prefix();
    let key = |name: &str| format!("{prefix}/{name}");

    // A long call on the same connection is no request that ends, and is cut with it.
    let from = Some(WatchOptions::new().with_prefix());
    let watch = through.watch(prefix.as_str(), from);
    let mut watch = within(watch).await.expect("it runs");
    put(&mut through, &key("a"), "1").await.expect("forwarded");

    for round in 0..5 {
        let done = key(&format!("done{round}"));
        proxy.lose_next_reply(done.as_bytes());
        put(&mut through, &key("b"), "1").await.expect("another");
        put(&mut through, &done, "1").await.expect_err("it is lost");
        assert_eq!(proxy.losses(), 2 * round + 1);
        // No question of time: it was answered before it was lost.
        assert_eq!(get(&mut direct, &done).await.as_deref(), Some("1"));

        // A client notices late that its connection is cut, and fails one call more.
        through = client(proxy.endpoint()).await;
        let undone = key(&format!("undone{round}"));
        proxy.lose_next_request(b"");
        put(&mut through, &undone, "1")
            .await
            .expect_err("it is lost");
        assert_eq!(proxy.losses(), 2 * round + 2);
        through = client(proxy.endpoint()).await;
        put(&mut through, &key("c"), "1").await.expect("forwarded");
        assert_eq!(get(&mut direct, &undone).await, None);
    }
    let mut told = within(watch.message()).await;
    while let Ok(Some(_)) = told {
        told = within(watch.message()).await;
    }

    proxy.set(Way::Refuse);
    put(&mut through, &key("d"), "1").await.expect_err("cut");
    let mut refused = client(proxy.endpoint()).await;
    put(&mut refused, &key("d"), "1")
        .await
        .expect_err("refused");
    proxy.set(Way::Forward);
    through = client(proxy.endpoint()).await;
    put(&mut through, &key("d"), "1").await.expect("forwarded");
    proxy.set(Way::Hang);
    let waiting = async { get(&mut through, &key("d")).await };
    let waiting = tokio::time::timeout(Duration::from_millis(200), waiting);
    waiting.await.expect_err("it hangs");
    proxy.set(Way::Forward);
    assert_eq!(get(&mut through, &key("d")).await.as_deref(), Some("1"));
}
