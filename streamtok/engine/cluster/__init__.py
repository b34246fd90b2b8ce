"""Engines on several machines: replicas that Ray runs, behind one `Engine`. Needs the extra `ray`.

Read in this order: `router` chooses a replica for a request, `places` has what each of them
computes, `client` is the engine that a server sees and moves what a replica cannot finish to
another one; none of these knows Ray. `replica` is the actor, `ray` starts and reaches it.
`streamtok.app` plugs it in for `--engine ray`.
"""
