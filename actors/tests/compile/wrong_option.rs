use dmrpc_actors::actor;

struct Typist;

#[actor]
impl Typist {
    #[message(idd = 4)]
    fn press(&mut self) {}
}

fn main() {}
