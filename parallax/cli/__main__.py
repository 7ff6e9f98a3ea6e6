from parallax.cli.main import main

main()
