import sys

from parallax.runtime.threads import limit_spinning

limit_spinning()

from parallax.train.command import main  # noqa: E402  # imports torch, which reads the setting

sys.exit(main())
