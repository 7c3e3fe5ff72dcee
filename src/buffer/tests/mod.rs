//! What threads can do to a pool, in every order.

mod loom;
