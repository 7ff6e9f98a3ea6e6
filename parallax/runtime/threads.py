import os

_SPINS = "20000"


def limit_spinning() -> None:
    """Lets OpenMP's idle threads sleep after a moment; call it before torch is imported.

    By default GNU OpenMP's threads spin at every barrier for as long as they are not outnumbered by processors, as
    far as their own process knows. A second busy process, on a laptop or a shared node, then makes a step of small
    products many times slower (`docs/EXPERIMENTS.md`). Settings that the user made in the environment win.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS
