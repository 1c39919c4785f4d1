//! One lock per name: calls about the same container, or the same host interface, wait for each
//! other; all others run at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// A name is known only while someone holds or awaits its lock.
#[derive(Clone, Debug, Default)]
pub struct NamedLocks {
    locks: Arc<Mutex<HashMap<String, Arc<AsyncMutex<()>>>>>,
}

/// Holds one name; dropping it lets the next one in.
#[derive(Debug)]
pub struct NamedGuard {
    name: String,
    guard: Option<OwnedMutexGuard<()>>,
    locks: NamedLocks,
}

impl NamedLocks {
    pub async fn lock(&self, name: &str) -> NamedGuard {
        let lock = self.entry(name);
        NamedGuard {
            name: name.to_owned(),
            guard: Some(lock.lock_owned().await),
            locks: self.clone(),
        }
    }

    fn entry(&self, name: &str) -> Arc<AsyncMutex<()>> {
        let mut locks = self.locks.lock().expect("nothing panics under this lock");
        locks.entry(name.to_owned()).or_default().clone()
    }

    fn forget_unused(&self, name: &str) {
        let mut locks = self.locks.lock().expect("nothing panics under this lock");
        // Whoever waits holds a clone, made under the lock taken here.
        if locks
            .get(name)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            locks.remove(name);
        }
    }
}

impl Drop for NamedGuard {
    fn drop(&mut self) {
        self.guard = None;
        self.locks.forget_unused(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::NamedLocks;

    #[tokio::test]
    async fn same_name_waits_and_unused_names_are_forgotten() {
        let locks = NamedLocks::default();
        let first = locks.lock("a").await;
        let other = locks.lock("b").await;
        let waiting = tokio::spawn({
            let locks = locks.clone();
            async move { drop(locks.lock("a").await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(other);
        waiting.await.expect("the waiting task");
        assert!(locks.locks.lock().expect("not poisoned").is_empty());
    }
}
