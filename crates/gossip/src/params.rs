//! The numbers of a mesh.

/// Up to so many nodes everybody tells everybody.
pub const FULL_MESH: usize = 12;

/// Names a message: a digest that is made outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageId(pub [u8; 32]);

/// The numbers of a mesh. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// How many peers are in a mesh, taken over the nodes. A node that has fewer by two
    /// grafts: others graft it too, so it comes to have more than it asked for.
    pub degree: usize,
    /// Below so many it hurries, and pushes to others meanwhile.
    pub degree_least: usize,
    /// With so many it takes no more.
    pub degree_most: usize,
    /// So many of the mesh it has chosen itself, and keeps room for them: who grafts
    /// everybody must not be all that anybody hears.
    pub degree_own: usize,
    /// How often the mesh is looked after.
    pub heartbeat_ms: u64,
    /// The same while the mesh is too small. Announcements leave on this beat too.
    pub tick_ms: u64,
    /// When a message is announced, counted from its coming: once in each round.
    pub rounds_ms: [u64; 3],
    /// The most peers that are told of the same news in one round.
    pub lazy_most: usize,
    /// One more peer is told for so many ids that there are to tell.
    pub ids_per_peer: usize,
    /// An announcement with fewer ids is filled up to so many with the latest ones, whose
    /// rounds are over: it costs no frame.
    pub recent_in_frame: usize,
    /// How long an announced message is waited for before it is requested: its push
    /// may be under way.
    pub pull_wait_ms: u64,
    /// How long a requested message is waited for before another peer is asked.
    pub pull_retry_ms: u64,
    /// How often a message is requested before it is given up, until it is announced
    /// again; of one peer twice at most.
    pub pulls_most: usize,
    /// After a prune neither end grafts the other for so long.
    pub backoff_ms: u64,
    /// A stream that is down for fewer heartbeats costs nobody its place in the mesh.
    pub patience: u32,
    /// How long a message may be requested.
    pub cache_ms: u64,
    /// The most messages that may be requested; each author has an equal share.
    pub cache_most: usize,
    /// The most bytes of them.
    pub cache_bytes_most: usize,
    /// How long an id is remembered. Longer than [`Self::cache_ms`], or an old message
    /// would go round again.
    pub seen_ms: u64,
    /// The most ids that are remembered.
    pub seen_most: usize,
    /// The most ids of one peer's announcements that are wanted at a time.
    pub wanted_of_peer: usize,
    /// The most ids in one announcement or request that are looked at and said.
    pub ids_in_frame: usize,
    /// The most messages that one peer gets on request between two heartbeats.
    pub served_to_peer: u32,
    /// The most messages of one author that go on between two heartbeats.
    pub relayed_of_author: u32,
    /// Who has said nothing in the mesh while so many messages came leaves it.
    pub silent_after: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            degree: 6,
            degree_least: 4,
            degree_most: 12,
            degree_own: 2,
            heartbeat_ms: 1_000,
            tick_ms: 200,
            rounds_ms: [200, 800, 3_200],
            lazy_most: 6,
            ids_per_peer: 4,
            recent_in_frame: 128,
            pull_wait_ms: 50,
            pull_retry_ms: 500,
            pulls_most: 10,
            backoff_ms: 60_000,
            patience: 10,
            cache_ms: 60_000,
            cache_most: 65_536,
            cache_bytes_most: 32 << 20,
            seen_ms: 120_000,
            seen_most: 131_072,
            wanted_of_peer: 512,
            ids_in_frame: 512,
            served_to_peer: 1_024,
            relayed_of_author: 4_096,
            silent_after: 16,
        }
    }
}
