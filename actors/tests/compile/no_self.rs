use dmrpc_actors::actor;

struct Maker;

#[actor]
impl Maker {
    #[message]
    fn make() {}

    #[message]
    fn take(self) {}

    #[message]
    fn generic<T>(&mut self, t: T) {}
}

fn main() {}
