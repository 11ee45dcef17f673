# bash completion for xenplug
# Devices and guests come from the running agent; without one these words are simply not offered.

_xenplug_words() {
    xenplug status --json 2>/dev/null | python3 -c '
import json, sys
try:
    status = json.load(sys.stdin)
except ValueError:
    sys.exit()
for entry in status[sys.argv[1]]:
    print(entry[sys.argv[2]])
' "$1" "$2"
}

_xenplug() {
    local cur prev command words='' i place=0
    COMPREPLY=()
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD - 1]}
    command=${COMP_WORDS[1]}

    if ((COMP_CWORD == 1)); then
        words='run check devices explain status attach detach release pause resume prefer reload history simulate test
            udev-rules import init record xl-cfg schema doctor config --help --version'
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    case $prev in
    --policy | --settings | --socket | --guests | --root)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    --host)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -W udev -- "$cur"; compgen -f -- "$cur")
        return
        ;;
    --format)
        mapfile -t COMPREPLY < <(compgen -W 'text github json' -- "$cur")
        return
        ;;
    --type)
        mapfile -t COMPREPLY < <(compgen -W 'pv pvh hvm' -- "$cur")
        return
        ;;
    --toolstack)
        mapfile -t COMPREPLY < <(compgen -W 'xl simulated' -- "$cur")
        return
        ;;
    esac
    if [[ $cur == -* ]]; then
        case $command in
        run) words='--policy --settings --host --toolstack --guests --dry-run --debug' ;;
        doctor) words='--all --root --policy --json --socket --settings' ;;
        check) words='--strict --elsewhere --format --policy --json --host --socket --settings' ;;
        devices) words='--tree --json --host --socket --settings' ;;
        explain) words='--json --policy --host --socket --settings' ;;
        status) words='--watch --json --socket --settings' ;;
        detach) words='--all --json --socket --settings' ;;
        history) words='--follow --json --socket --settings' ;;
        prefer) words='--clear --json --socket --settings' ;;
        attach | release | pause | resume | reload) words='--json --socket --settings' ;;
        simulate | schema) words='--json' ;;
        test) words='--junit --json' ;;
        init) words='--give --force --host --settings' ;;
        record) words='--no-serials --settings' ;;
        import) words='--guest --json --host --settings' ;;
        udev-rules) words='--policy' ;;
        xl-cfg) words='--type --json --policy --host --settings' ;;
        config) words='--json --settings' ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "--help $words" -- "$cur")
        return
    fi
    for ((i = 2; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* ]] || ((place++))
    done
    case $command:$place in
    explain:0 | attach:0 | detach:0 | release:0) words=$(_xenplug_words devices port) ;;
    history:0) words=$(_xenplug_words devices port) ;;
    attach:1 | prefer:0) words=$(_xenplug_words guests name) ;;
    pause:0 | resume:0) words="all $(_xenplug_words guests name) $(_xenplug_words devices port)" ;;
    schema:0) words='policy scenario settings' ;;
    check:* | simulate:* | test:* | import:* | init:* | record:*)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _xenplug xenplug
