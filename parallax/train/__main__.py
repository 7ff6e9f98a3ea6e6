import sys

from parallax.train.command import main

sys.exit(main())
