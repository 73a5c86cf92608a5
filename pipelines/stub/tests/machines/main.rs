//! Machines that are not this one, under the real worker. The elements are stand-ins: see the crate's page.

mod boards;
mod chroma;
mod faults;
mod proofs;
mod quirks;
mod sizes;
mod support;
mod warm;
mod ways;
