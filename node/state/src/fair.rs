//! Weighted fair shares among tenants: start-time fair queueing, in whole numbers.
//!
//! Each priority has a virtual time V, and each tenant a finish tag F in each priority. An accepted
//! job gets the start tag max(V, F), and F becomes the tag + cost / weight. Whoever asked for much
//! gets late tags; whoever comes new starts at V and not before. V follows the tags of the jobs
//! that are leased. Nothing here reads a clock, so a new leader serves in the same order.
//!
//! Source: Goyal, Vin, Cheng, Start-time Fair Queueing, SIGCOMM 1996, section 2.

use crate::limits::{PRIORITY_MAX, TENANTS_MAX};
use imbl::OrdMap;
use std::sync::Arc;

/// How many priorities there are.
pub(crate) const PRIORITIES: usize = PRIORITY_MAX as usize + 1;

/// One tag a priority.
pub(crate) type Tags = [u64; PRIORITIES];

/// A picture under weight 1, in tags. Divisible by the small weights, so that they are exact.
const SCALE: u64 = 1_000_000;

/// What the fair share knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fair {
    pub(crate) virtual_times: Tags,
    pub(crate) tenants: OrdMap<Arc<str>, Tenant>,
}

/// A tenant that has unfinished jobs or a debt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) finish_tags: Tags,
    // Derived from the jobs.
    pub(crate) queued: usize,
    pub(crate) leased: usize,
}

impl Tenant {
    pub(crate) fn is_idle(&self) -> bool {
        self.queued + self.leased == 0
    }

    /// Returns by how much the tenant is ahead of its share, in the priority where that is most.
    fn debt(&self, virtual_times: &Tags) -> u64 {
        let ahead = self.finish_tags.iter().zip(virtual_times);
        ahead.map(|(finish, now)| finish.saturating_sub(*now)).max().unwrap_or(0)
    }
}

impl Fair {
    /// Says whether a job of this tenant could be accepted: it is known, or room can be made.
    pub(crate) fn has_room(&self, tenant: &str) -> bool {
        self.tenants.len() < TENANTS_MAX
            || self.tenants.contains_key(tenant)
            || self.tenants.values().any(Tenant::is_idle)
    }

    /// Gives an accepted job its start tag. A new tenant beyond the bound takes the place of the
    /// idle one with the least debt, which thereby is forgiven.
    pub(crate) fn accept(
        &mut self,
        tenant: &Arc<str>,
        priority: u8,
        cost: u32,
        weight: u64,
    ) -> u64 {
        assert!(self.has_room(tenant));
        assert!(weight > 0);
        if self.tenants.len() >= TENANTS_MAX && !self.tenants.contains_key(tenant) {
            self.drop_idle();
        }
        let class = usize::from(priority);
        let now = self.virtual_times[class];
        let record = self.tenants.entry(Arc::clone(tenant)).or_default();
        let tag = now.max(record.finish_tags[class]);
        // Tags would need ten thousand years of a million pictures a second to get there.
        let share = u64::from(cost).saturating_mul(SCALE) / weight;
        record.finish_tags[class] = tag.saturating_add(share);
        tag
    }

    fn drop_idle(&mut self) {
        let idle = self.tenants.iter().filter(|(_, tenant)| tenant.is_idle());
        let least = idle.min_by_key(|(_, tenant)| tenant.debt(&self.virtual_times));
        let name = least.map(|(name, _)| Arc::clone(name)).expect("there is room");
        self.tenants.remove(&name);
        assert!(self.tenants.len() < TENANTS_MAX);
    }

    /// Moves the virtual time to the tag of a job that is leased.
    pub(crate) fn serve(&mut self, priority: u8, tag: u64) {
        let now = &mut self.virtual_times[usize::from(priority)];
        *now = (*now).max(tag);
    }

    /// Changes the counts of a tenant.
    pub(crate) fn count(&mut self, tenant: &Arc<str>, change: impl FnOnce(&mut Tenant)) {
        change(self.tenants.entry(Arc::clone(tenant)).or_default());
    }

    /// Drops a tenant when nothing is left to know about it, once a job of its has changed: in the
    /// middle of a change the job is counted nowhere.
    pub(crate) fn settle(&mut self, tenant: &str) {
        let Some(record) = self.tenants.get(tenant).filter(|record| record.is_idle()) else {
            return;
        };
        if record.debt(&self.virtual_times) == 0 || self.tenants.len() > TENANTS_MAX {
            self.tenants.remove(tenant);
        }
    }

    /// Returns the shared copy of a tenant's name.
    pub(crate) fn name(&self, tenant: &str) -> Option<Arc<str>> {
        self.tenants.get_key_value(tenant).map(|(name, _)| Arc::clone(name))
    }
}
