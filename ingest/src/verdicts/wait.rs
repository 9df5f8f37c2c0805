//! Requests that wait for a verdict: a bounded number, each woken once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;

use crate::recent::generations::Key;

/// Who waits for what.
pub(crate) struct Waiters {
    waiting: Mutex<HashMap<Key, Vec<Arc<Notify>>>>,
    most: usize,
    gauge: IntGauge,
}

impl Waiters {
    pub(crate) fn new(most: usize, gauge: IntGauge) -> Self {
        Self {
            waiting: Mutex::default(),
            most,
            gauge,
        }
    }

    /// Begins to wait; `None` when as many wait as may. Whoever waits looks first
    /// whether the verdict has come meanwhile.
    pub(crate) fn wait_for(&self, key: Key) -> Option<Waiting<'_>> {
        let notify = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock();
        if self.gauge.get() >= i64::try_from(self.most).unwrap_or(i64::MAX) {
            return None;
        }
        self.gauge.inc();
        waiting.entry(key).or_default().push(Arc::clone(&notify));
        Some(Waiting {
            waiters: self,
            key,
            notify,
        })
    }

    /// The verdict is there.
    pub(crate) fn wake(&self, key: Key) {
        // Counted before the first look for the verdict, which is made under the same
        // lock as the verdict's entry: whoever is not seen here has found it.
        if self.gauge.get() == 0 {
            return;
        }
        for notify in self.waiting.lock().remove(&key).unwrap_or_default() {
            notify.notify_one();
        }
    }
}

/// One that waits; leaves when dropped.
pub(crate) struct Waiting<'a> {
    waiters: &'a Waiters,
    key: Key,
    notify: Arc<Notify>,
}

impl Waiting<'_> {
    /// Comes back when the verdict is there, also if it came before this call.
    pub(crate) async fn verdict(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.lock();
        if let Some(those) = waiting.get_mut(&self.key) {
            those.retain(|notify| !Arc::ptr_eq(notify, &self.notify));
            if those.is_empty() {
                waiting.remove(&self.key);
            }
        }
        self.waiters.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recent::generations::Hashes;

    #[tokio::test]
    async fn the_right_ones_are_woken_and_the_number_is_bounded() {
        let gauge = IntGauge::new("waiters", "waiters").unwrap();
        let waiters = Waiters::new(3, gauge.clone());
        let hashes = Hashes::default();
        let (a, b) = (hashes.key("t", "a"), hashes.key("t", "b"));
        let (first, second) = (waiters.wait_for(a).unwrap(), waiters.wait_for(a).unwrap());
        let other = waiters.wait_for(b).unwrap();
        assert!(waiters.wait_for(b).is_none(), "a fourth");
        waiters.wake(a);
        first.verdict().await;
        second.verdict().await;
        assert!(futures::FutureExt::now_or_never(other.verdict()).is_none());
        drop((first, second, other));
        assert_eq!(gauge.get(), 0);
        assert!(waiters.waiting.lock().is_empty());
    }
}
