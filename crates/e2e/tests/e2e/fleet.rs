//! A fleet under faults: cache nodes on real servers, pages asked for all the while, and each response judged against the
//! truth in the database. The table in `docs/tiered-cache.md` names the test of each of its rows.

mod example;
mod kafka;
mod mariadb;
mod nodes;
mod redis;
mod rig;
mod shop;
mod traffic;
mod zookeeper;
